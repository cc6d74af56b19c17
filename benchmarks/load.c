/* The load generator of the benchmarks: Gearman clients and workers in one thread on one epoll.
 *
 * Lives here: the shapes of load, each bounded by a number of jobs and by time, and what is measured of
 * them. Never here: how large a load is (workloads.py), starting servers (servers.py), comparing (run.py).
 *
 * Built on the spot with `cc -O2`. Called as
 *
 *     load SHAPE --port PORT --jobs N [--clients N] [--workers N] [--window N] ...
 *
 * it prints one JSON object on standard output and exits 0. When the server loses a job, hands one out
 * twice, answers with ERROR, closes a connection, or sends nothing for `--stall` seconds, it says so on
 * standard error and exits 1.
 *
 * What holds for every shape, so that the two servers meet the same work:
 *
 * - The number of jobs is fixed, not the time: both servers end with the same work done.
 * - Connecting, CAN_DO, the first sleep of the workers and filling the queue are over before the clock
 *   starts. An ECHO_REQ on each connection proves it: its answer comes behind everything sent earlier.
 * - Everything handled on one connection in one go is sent in one write, with TCP_NODELAY set.
 * - The content is deterministic: payloads, uniques and the order of functions are the same in each run.
 * - Each payload carries its job's number, and each job is ticked off. A server that drops, repeats or
 *   mixes up jobs cannot have a result.
 */
#define _GNU_SOURCE
#include "measure.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum packet_type {
    CAN_DO = 1,
    PRE_SLEEP = 4,
    NOOP = 6,
    SUBMIT_JOB = 7,
    JOB_CREATED = 8,
    NO_JOB = 10,
    WORK_COMPLETE = 13,
    ECHO_REQ = 16,
    ECHO_RES = 17,
    SUBMIT_JOB_BG = 18,
    ERROR = 19,
    GRAB_JOB_UNIQ = 30,
    JOB_ASSIGN_UNIQ = 31,
};

enum {
    HEADER = 12,
    STAMP = 16,          /* bytes of a payload that carry the job's number and when it was sent */
    COMPARED = 1024,     /* bytes behind the stamp, and at the end, that are compared */
    UNIQUE = 36,         /* bytes of a unique: the UUID that libgearman makes */
    NAME = 16,           /* bytes kept for a function's name */
    FIRST_BUFFER = 4096, /* grows with use: ten thousand idle connections must stay cheap */
    LARGEST_READ = 1 << 18,
    EVENTS = 512,
    SETTLED_AFTER_NS = 60000000, /* without processor time, which is told in hundredths of a second */
    AT_ONCE = 16, /* connections opened before their echoes are awaited: gearmand's backlog is 32 */
};

/* -- settings and state ------------------------------------------------------------------------ */

static struct {
    long port, jobs, clients, workers, window, payload, result, functions, unique, depth, limit, prefilled;
    long connections, stall, deadline, server_pid;
} settings = {
    .jobs = 1000,
    .clients = 1,
    .workers = 1,
    .window = 1,
    .payload = 64,
    .result = -1,
    .functions = 1,
    .limit = 1000,
    .stall = 10,
    .deadline = 120,
};

static const struct {
    const char *name;
    long *value;
    long least;
} options[] = {
    {"--port", &settings.port, 1},
    {"--jobs", &settings.jobs, 1},               /* measured jobs */
    {"--clients", &settings.clients, 1},         /* connections that submit */
    {"--workers", &settings.workers, 1},         /* connections that work */
    {"--window", &settings.window, 1},           /* unanswered submits per client */
    {"--payload", &settings.payload, STAMP},     /* bytes */
    {"--result", &settings.result, -1},          /* bytes; -1: as many as the payload */
    {"--functions", &settings.functions, 1},     /* how many functions, used in turn; 100,000 at most */
    {"--unique", &settings.unique, 0},           /* 1: every job has a unique of its own */
    {"--depth", &settings.depth, 0},             /* jobs queued beside the measured ones */
    {"--limit", &settings.limit, 1},             /* `through`: unfinished jobs in the system */
    {"--prefilled", &settings.prefilled, 0},     /* 1: an earlier run has filled the queue for `drain` */
    {"--connections", &settings.connections, 1}, /* `idle` */
    {"--stall", &settings.stall, 1},             /* seconds without a packet before giving up */
    {"--deadline", &settings.deadline, 1},       /* seconds for the whole run */
    {"--server-pid", &settings.server_pid, 1},   /* whose CPU time to measure */
};

struct connection {
    int fd;
    void (*on_packet)(struct connection *, unsigned type, unsigned char *body, size_t size);
    void (*on_quiet)(struct connection *); /* after all packets of one read, before the one write */
    unsigned char *in, *out;
    size_t in_start, in_end, in_size, out_start, out_end, out_size;
    bool awaits_room;
    bool asleep;
    long created;     /* answers to submits */
    long finished;    /* results */
    long outstanding; /* requests without the answer that the shape waits for */
};

static struct {
    int epoll;
    struct connection *connections;
    long connection_count;
    long echoes; /* answers to barriers still to come */
    long submitted, created, finished, sleeping, grabbed, noops;
    long total;        /* jobs of the phase under way */
    long first_unique; /* of the phase: no phase repeats the uniques of another */
    void (*on_round)(void);
    unsigned char *payload; /* the bytes that every payload starts from */
    unsigned char *seen;    /* one bit per job */
    uint64_t *latencies;
    long latency_count;
    char (*names)[NAME];
    uint64_t last_packet, give_up;
} run;

/* -- giving up --------------------------------------------------------------------------------- */

static void *checked(void *memory)
{
    if (memory == NULL)
        die("out of memory");
    return memory;
}

static _Noreturn void give_up(const char *why, long seconds)
{
    die("%s %ld s: of %ld jobs %ld are submitted, %ld acknowledged, %ld finished; %ld workers sleep, "
        "%ld NOOPs came",
        why, seconds, run.total, run.submitted, run.created, run.finished, run.sleeping, run.noops);
}

static void check_time(uint64_t now)
{
    if (now - run.last_packet > (uint64_t)settings.stall * 1000000000u)
        give_up("the server has sent nothing for", settings.stall);
    if (now > run.give_up)
        give_up("not done after", settings.deadline);
}

/* -- packets out ------------------------------------------------------------------------------- */

static void put_be32(unsigned char *at, uint32_t value)
{
    value = htonl(value);
    memcpy(at, &value, sizeof value);
}

/* Where the body of a new packet of `size` bytes is to be written. */
static unsigned char *put_packet(struct connection *connection, unsigned type, size_t size)
{
    size_t wanted = HEADER + size;
    if (connection->out_start == connection->out_end)
        connection->out_start = connection->out_end = 0;
    if (connection->out_end + wanted > connection->out_size) {
        size_t larger = connection->out_size ? connection->out_size : FIRST_BUFFER;
        while (larger < connection->out_end + wanted)
            larger *= 2;
        connection->out = checked(realloc(connection->out, larger));
        connection->out_size = larger;
    }
    unsigned char *packet = connection->out + connection->out_end;
    memcpy(packet, "\0REQ", 4);
    put_be32(packet + 4, type);
    put_be32(packet + 8, (uint32_t)size);
    connection->out_end += wanted;
    return packet + HEADER;
}

static void await_room(struct connection *connection, bool wanted)
{
    if (connection->awaits_room == wanted)
        return;
    struct epoll_event event = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = connection};
    if (epoll_ctl(run.epoll, EPOLL_CTL_MOD, connection->fd, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
    connection->awaits_room = wanted;
}

static void flush(struct connection *connection)
{
    while (connection->out_start < connection->out_end) {
        ssize_t sent = send(connection->fd, connection->out + connection->out_start,
                            connection->out_end - connection->out_start, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (sent < 0)
            die("sending: %s", strerror(errno));
        connection->out_start += (size_t)sent;
    }
    await_room(connection, connection->out_start < connection->out_end);
}

static uint64_t scatter(uint64_t number)
{
    number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9u;
    number = (number ^ (number >> 27)) * 0x94d049bb133111ebu;
    return number ^ (number >> 31);
}

/* A unique that looks like libgearman's UUID, always the same for the same job. */
static void make_unique(unsigned char *at, uint64_t job)
{
    uint64_t half[2] = {scatter(2 * job + 1), scatter(2 * job + 2)};
    for (unsigned digit = 0; digit < 32; digit++) {
        if (digit == 8 || digit == 12 || digit == 16 || digit == 20)
            *at++ = '-';
        *at++ = (unsigned char)"0123456789abcdef"[half[digit / 16] >> (60 - digit % 16 * 4) & 15];
    }
}

static void put_payload(unsigned char *at, long job)
{
    uint64_t stamp[2] = {now_ns(), (uint64_t)job};
    memcpy(at, stamp, STAMP);
    memcpy(at + STAMP, run.payload + STAMP, (size_t)settings.payload - STAMP);
}

/* Submit the next job in turn. */
static void put_job(struct connection *connection, unsigned type)
{
    long job = run.submitted++;
    const char *name = run.names[job % settings.functions];
    size_t length = strlen(name) + 1;
    size_t unique = settings.unique ? UNIQUE : 0;
    unsigned char *at = put_packet(connection, type, length + unique + 1 + (size_t)settings.payload);
    memcpy(at, name, length);
    at += length;
    if (unique)
        make_unique(at, (uint64_t)(run.first_unique + job));
    at[unique] = '\0';
    put_payload(at + unique + 1, job);
    connection->outstanding++;
}

/* -- packets in -------------------------------------------------------------------------------- */

static uint32_t be32(const unsigned char *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return ntohl(value);
}

/* What every connection understands beside the packets of its role. */
static void other_packet(struct connection *connection, unsigned type, unsigned char *body, size_t size)
{
    (void)connection;
    if (type == ERROR)
        die("the server answered ERROR: %.*s: %.*s", (int)strnlen((char *)body, size), body,
            (int)(size - strnlen((char *)body, size)), body + strnlen((char *)body, size) + 1);
    if (type != ECHO_RES || run.echoes == 0)
        die("packet type %u was not expected", type);
    run.echoes--;
}

static void handle_packets(struct connection *connection)
{
    while (connection->in_end - connection->in_start >= HEADER) {
        unsigned char *packet = connection->in + connection->in_start;
        size_t size = be32(packet + 8);
        if (memcmp(packet, "\0RES", 4) != 0)
            die("a packet of the server does not begin with its magic");
        if (connection->in_end - connection->in_start < HEADER + size)
            break;
        connection->in_start += HEADER + size;
        connection->on_packet(connection, be32(packet + 4), packet + HEADER, size);
    }
}

static void make_room(struct connection *connection)
{
    size_t kept = connection->in_end - connection->in_start;
    if (connection->in_start > 0) {
        memmove(connection->in, connection->in + connection->in_start, kept);
        connection->in_start = 0;
        connection->in_end = kept;
    }
    size_t wanted = kept >= HEADER ? HEADER + be32(connection->in + 8) : FIRST_BUFFER;
    if (connection->in_size < wanted || connection->in_size == kept) {
        size_t larger = connection->in_size ? connection->in_size : FIRST_BUFFER;
        while (larger < wanted || larger == kept)
            larger *= 2;
        connection->in = checked(realloc(connection->in, larger));
        connection->in_size = larger;
    }
}

static void receive(struct connection *connection)
{
    make_room(connection);
    size_t room = connection->in_size - connection->in_end;
    ssize_t got = recv(connection->fd, connection->in + connection->in_end, room, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got < 0)
        die("receiving: %s", strerror(errno));
    if (got == 0)
        die("the server closed a connection");
    connection->in_end += (size_t)got;
    handle_packets(connection);
    if ((size_t)got == room && connection->in_size < LARGEST_READ) {
        connection->in_size *= 2;
        connection->in = checked(realloc(connection->in, connection->in_size));
    }
    if (connection->on_quiet != NULL)
        connection->on_quiet(connection);
    flush(connection);
}

/* Handle events until `*value` is `goal`. */
static void serve_until(const long *value, long goal)
{
    struct epoll_event events[EVENTS];
    while (*value != goal) {
        int count = epoll_wait(run.epoll, events, EVENTS, 500);
        if (count < 0 && errno != EINTR)
            die("epoll_wait: %s", strerror(errno));
        uint64_t now = now_ns();
        if (count > 0)
            run.last_packet = now;
        check_time(now);
        for (int index = 0; index < count; index++) {
            struct connection *connection = events[index].data.ptr;
            if (events[index].events & EPOLLOUT)
                flush(connection);
            if (events[index].events & ~(uint32_t)EPOLLOUT)
                receive(connection);
        }
        if (run.on_round != NULL)
            run.on_round();
    }
}

/* -- connections ------------------------------------------------------------------------------- */

static int connect_to_server(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)settings.port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0)
        die("socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("cannot connect to port %ld: %s", settings.port, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* Wait until the server has handled everything sent on the connections first to last - 1. */
static void barrier(long first, long last)
{
    run.echoes = last - first;
    for (long index = first; index < last; index++) {
        put_packet(&run.connections[index], ECHO_REQ, 0);
        flush(&run.connections[index]);
    }
    serve_until(&run.echoes, 0);
}

/* Open `count` connections more, accepted and answered when this returns; the first of them. */
static struct connection *open_connections(long count)
{
    long first = run.connection_count;
    for (long opened = 0; opened < count;) {
        long group = run.connection_count;
        for (int within = 0; within < AT_ONCE && opened < count; within++, opened++) {
            struct connection *connection = &run.connections[run.connection_count++];
            connection->fd = connect_to_server();
            connection->on_packet = other_packet;
            struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
            if (epoll_ctl(run.epoll, EPOLL_CTL_ADD, connection->fd, &event) < 0)
                die("epoll_ctl: %s", strerror(errno));
        }
        barrier(group, run.connection_count);
    }
    return &run.connections[first];
}

static void reserve_connections(long count)
{
    run.connections = checked(calloc((size_t)count, sizeof *run.connections));
}

/* -- ticking off jobs -------------------------------------------------------------------------- */

/* Begin a phase of `total` jobs, numbered from 0. */
static void begin_phase(long total)
{
    run.first_unique += run.total;
    run.total = total;
    run.submitted = run.created = run.finished = run.grabbed = 0;
    free(run.seen);
    run.seen = checked(calloc(((size_t)total + 7) / 8, 1));
}

/* A payload has come out of the server: it must be one that went in, for the first time. */
static uint64_t tick_off(const unsigned char *payload, size_t size)
{
    uint64_t stamp[2];
    if (size != (size_t)settings.payload)
        die("a payload of %ld bytes came out with %zu", settings.payload, size);
    memcpy(stamp, payload, STAMP);
    uint64_t job = stamp[1];
    if (job >= (uint64_t)run.total)
        die("a payload came out with the number of no job");
    if (run.seen[job / 8] & 1u << job % 8)
        die("job %lu came out twice", (unsigned long)job);
    size_t rest = size - STAMP, compared = rest < COMPARED ? rest : COMPARED;
    if (memcmp(payload + STAMP, run.payload + STAMP, compared) != 0 ||
        memcmp(payload + size - compared, run.payload + size - compared, compared) != 0)
        die("a payload came out changed");
    run.seen[job / 8] |= (unsigned char)(1u << job % 8);
    return stamp[0];
}

static void keep_latency(uint64_t sent)
{
    run.latencies[run.latency_count++] = now_ns() - sent;
}

static unsigned char *behind_nul(unsigned char *at, const unsigned char *end)
{
    unsigned char *nul = memchr(at, 0, (size_t)(end - at));
    if (nul == NULL)
        die("a packet of the server lacks a NUL");
    return nul + 1;
}

/* Answer a JOB_ASSIGN_UNIQ with the job's completion. With `ticks`, this is where the job comes out. */
static void complete_job(struct connection *connection, unsigned char *body, size_t size, bool ticks)
{
    unsigned char *end = body + size;
    unsigned char *function = behind_nul(body, end);
    unsigned char *payload = behind_nul(behind_nul(function, end), end);
    size_t handle = (size_t)(function - body);
    size_t result = settings.result < 0 ? (size_t)(end - payload) : (size_t)settings.result;
    if (ticks)
        tick_off(payload, (size_t)(end - payload));
    if (result > (size_t)(end - payload))
        die("--result must not exceed --payload");
    unsigned char *at = put_packet(connection, WORK_COMPLETE, handle + result);
    memcpy(at, body, handle);
    memcpy(at + handle, payload, result);
}

/* -- a pipelined background submitter ---------------------------------------------------------- */

/* Refills in halves of the window, so that every write is large and the server always has work. */
static void refill_background(struct connection *connection)
{
    if (connection->outstanding > settings.window / 2)
        return;
    while (connection->outstanding < settings.window && run.submitted < run.total)
        put_job(connection, SUBMIT_JOB_BG);
}

static void on_acknowledged(struct connection *connection, unsigned type, unsigned char *body, size_t size)
{
    if (type != JOB_CREATED) {
        other_packet(connection, type, body, size);
        return;
    }
    connection->outstanding--;
    run.created++;
}

/* Submit `total` background jobs on connections that are open. */
static void submit_all(struct connection *clients, long count, long total)
{
    begin_phase(total);
    for (long index = 0; index < count; index++) {
        clients[index].on_packet = on_acknowledged;
        clients[index].on_quiet = refill_background;
        refill_background(&clients[index]);
        flush(&clients[index]);
    }
    serve_until(&run.created, total);
}

/* -- workers that sleep ------------------------------------------------------------------------ */

/* A worker as libgearman has it: grab; on NO_JOB announce sleep; asleep, grab again on NOOP; a NOOP that
 * crosses a grab is ignored. Two liberties: the completion and the next grab leave in one write, and the
 * grab is GRAB_JOB_UNIQ, which is answered like the GRAB_JOB_ALL of libgearman's default. */
static void on_worker_packet(struct connection *worker, unsigned type, unsigned char *body, size_t size)
{
    bool background = settings.result == 0;
    switch (type) {
    case NOOP:
        run.noops++;
        if (!worker->asleep)
            return;
        worker->asleep = false;
        run.sleeping--;
        put_packet(worker, GRAB_JOB_UNIQ, 0);
        return;
    case NO_JOB:
        if (worker->asleep)
            die("NO_JOB came to a sleeping worker");
        worker->asleep = true;
        run.sleeping++;
        put_packet(worker, PRE_SLEEP, 0);
        return;
    case JOB_ASSIGN_UNIQ:
        complete_job(worker, body, size, background);
        if (background)
            run.finished++;
        put_packet(worker, GRAB_JOB_UNIQ, 0);
        return;
    default:
        other_packet(worker, type, body, size);
    }
}

static void announce_functions(struct connection *workers, long count)
{
    for (long index = 0; index < count; index++) {
        for (long function = 0; function < settings.functions; function++) {
            size_t length = strlen(run.names[function]);
            memcpy(put_packet(&workers[index], CAN_DO, length), run.names[function], length);
        }
        flush(&workers[index]);
        barrier(workers + index - run.connections, workers + index + 1 - run.connections);
    }
}

/* Bring workers to sleep, as they are when nothing was to do for a while. */
static void put_to_sleep(struct connection *workers, long count)
{
    long first = workers - run.connections;
    for (long index = 0; index < count; index++) {
        workers[index].on_packet = on_worker_packet;
        put_packet(&workers[index], GRAB_JOB_UNIQ, 0);
        flush(&workers[index]);
    }
    serve_until(&run.sleeping, count);
    barrier(first, first + count);
}

/* -- shape: submit ----------------------------------------------------------------------------- */

/* Background submits, `--window` unanswered per client. With `--depth`, so many jobs are queued before
 * the clock starts. Ends with the last JOB_CREATED: each job is in the queue. */
static void submit(void)
{
    reserve_connections(settings.clients + 1);
    if (settings.depth > 0)
        submit_all(open_connections(1), 1, settings.depth);
    struct connection *clients = open_connections(settings.clients);
    start_clock(settings.server_pid);
    submit_all(clients, settings.clients, settings.jobs);
    stop_clock(settings.server_pid);
}

/* -- shape: drain ------------------------------------------------------------------------------ */

static void on_drain_packet(struct connection *worker, unsigned type, unsigned char *body, size_t size)
{
    if (type == NO_JOB)
        die("NO_JOB, and %ld of %ld jobs have not come out", run.total - run.finished, run.total);
    if (type != JOB_ASSIGN_UNIQ) {
        other_packet(worker, type, body, size);
        return;
    }
    complete_job(worker, body, size, true);
    run.finished++;
    if (run.grabbed < settings.jobs) {
        run.grabbed++;
        put_packet(worker, GRAB_JOB_UNIQ, 0);
    } else {
        put_packet(worker, ECHO_REQ, 0);
    }
}

/* Workers empty a queue that was filled before the clock starts, each with one job at a time; completion
 * and next grab leave in one write. With `--depth`, so many jobs stay in the queue. Each worker ends with
 * an echo instead of a grab, so the clock stops when the server has handled every completion. */
static void drain(void)
{
    long queued = settings.jobs + settings.depth;
    reserve_connections(settings.workers + 1);
    if (settings.prefilled)
        begin_phase(queued);
    else
        submit_all(open_connections(1), 1, queued);
    struct connection *workers = open_connections(settings.workers);
    announce_functions(workers, settings.workers);
    run.echoes = settings.workers;
    start_clock(settings.server_pid);
    for (long index = 0; index < settings.workers; index++) {
        workers[index].on_packet = on_drain_packet;
        run.grabbed++;
        put_packet(&workers[index], GRAB_JOB_UNIQ, 0);
        flush(&workers[index]);
    }
    serve_until(&run.echoes, 0);
    stop_clock(settings.server_pid);
    if (run.finished != settings.jobs)
        die("%ld jobs came out of %ld", run.finished, settings.jobs);
}

/* -- shape: foreground ------------------------------------------------------------------------- */

static void refill_foreground(struct connection *client)
{
    while (client->outstanding < settings.window && run.submitted < run.total)
        put_job(client, SUBMIT_JOB);
}

static void on_client_packet(struct connection *client, unsigned type, unsigned char *body, size_t size)
{
    if (type == JOB_CREATED) {
        client->created++;
        run.created++;
    } else if (type == WORK_COMPLETE) {
        unsigned char *result = behind_nul(body, body + size);
        keep_latency(tick_off(result, (size_t)(body + size - result)));
        if (++client->finished > client->created)
            die("a result came ahead of its JOB_CREATED");
        client->outstanding--;
        run.finished++;
    } else {
        other_packet(client, type, body, size);
    }
}

/* Wait until the server has taken no processor time for a while: what connecting and registering has left
 * it to do is done then. From outside that cannot be seen in another way. */
static void settle(long server_pid)
{
    const struct timespec quiet = {.tv_nsec = SETTLED_AFTER_NS};
    double kernel, before = -1, now = server_cpu(server_pid, &kernel);
    while (now != before) {
        if (now_ns() > run.give_up)
            die("the server does not come to rest");
        nanosleep(&quiet, NULL);
        before = now;
        now = server_cpu(server_pid, &kernel);
    }
}

/* Foreground jobs, `--window` unfinished per client; the result is the payload. All workers sleep when
 * the clock starts, and the server rests. Latency is from the submit to its result. Ends with the last result: the
 * NO_JOBs to workers behind it are outside, for either server. */
static void foreground(void)
{
    reserve_connections(settings.workers + settings.clients);
    struct connection *workers = open_connections(settings.workers);
    announce_functions(workers, settings.workers);
    put_to_sleep(workers, settings.workers);
    struct connection *clients = open_connections(settings.clients);
    settle(settings.server_pid);
    begin_phase(settings.jobs);
    run.noops = 0;
    run.latencies = checked(calloc((size_t)settings.jobs, sizeof *run.latencies));
    start_clock(settings.server_pid);
    for (long index = 0; index < settings.clients; index++) {
        clients[index].on_packet = on_client_packet;
        clients[index].on_quiet = refill_foreground;
        refill_foreground(&clients[index]);
        flush(&clients[index]);
    }
    serve_until(&run.finished, run.total);
    stop_clock(settings.server_pid);
}

/* -- shape: through ---------------------------------------------------------------------------- */

static struct connection *through_clients;
static long through_over;

/* Submits in halves of the window too, while the number of unfinished jobs stays within `--limit`. */
static void refill_through(void)
{
    for (long index = 0; index < settings.clients; index++) {
        struct connection *client = &through_clients[index];
        long batch = settings.window - client->outstanding;
        if (batch > run.total - run.submitted)
            batch = run.total - run.submitted;
        if (client->outstanding > settings.window / 2 || batch == 0 ||
            run.submitted - run.finished + batch > settings.limit)
            continue;
        while (batch-- > 0)
            put_job(client, SUBMIT_JOB_BG);
        flush(client);
    }
    through_over = run.finished == run.total && run.sleeping == settings.workers;
}

/* Clients submit background jobs while workers complete them with an empty result. Ends when the last
 * completion was sent and every worker has been told NO_JOB behind it: nothing is left in the server. */
static void through(void)
{
    settings.result = 0;
    if (settings.limit < settings.clients * settings.window)
        die("--limit must hold the window of every client");
    reserve_connections(settings.workers + settings.clients);
    struct connection *workers = open_connections(settings.workers);
    announce_functions(workers, settings.workers);
    put_to_sleep(workers, settings.workers);
    through_clients = open_connections(settings.clients);
    for (long index = 0; index < settings.clients; index++)
        through_clients[index].on_packet = on_acknowledged;
    begin_phase(settings.jobs);
    run.noops = 0;
    start_clock(settings.server_pid);
    run.on_round = refill_through;
    refill_through();
    serve_until(&through_over, 1);
    stop_clock(settings.server_pid);
}

/* -- shape: echo ------------------------------------------------------------------------------- */

static void refill_echo(struct connection *client)
{
    if (client->outstanding > settings.window / 2)
        return;
    while (client->outstanding < settings.window && run.submitted < run.total) {
        put_payload(put_packet(client, ECHO_REQ, (size_t)settings.payload), run.submitted++);
        client->outstanding++;
    }
}

static void on_echo_packet(struct connection *client, unsigned type, unsigned char *body, size_t size)
{
    if (type != ECHO_RES) {
        other_packet(client, type, body, size);
        return;
    }
    keep_latency(tick_off(body, size));
    client->outstanding--;
    run.finished++;
}

/* ECHO_REQ in the rhythm of `submit` (large `--window`) or one at a time (1): framing, reading and
 * writing without any scheduling. */
static void echo(void)
{
    reserve_connections(settings.clients);
    struct connection *clients = open_connections(settings.clients);
    begin_phase(settings.jobs);
    run.latencies = checked(calloc((size_t)settings.jobs, sizeof *run.latencies));
    start_clock(settings.server_pid);
    for (long index = 0; index < settings.clients; index++) {
        clients[index].on_packet = on_echo_packet;
        clients[index].on_quiet = refill_echo;
        refill_echo(&clients[index]);
        flush(&clients[index]);
    }
    serve_until(&run.finished, run.total);
    stop_clock(settings.server_pid);
}

/* -- shape: idle ------------------------------------------------------------------------------- */

/* Connections that have sent one echo and then nothing, held until standard input ends. */
static void idle(void)
{
    char byte;
    reserve_connections(settings.connections);
    open_connections(settings.connections);
    printf("{\"connections\": %ld}\n", settings.connections);
    fflush(stdout);
    alarm(0);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        continue;
}

/* -- command line and report ------------------------------------------------------------------- */

static void read_options(int count, char **arguments)
{
    for (int index = 0; index < count; index += 2) {
        size_t option = 0, known = sizeof options / sizeof *options;
        while (option < known && strcmp(options[option].name, arguments[index]) != 0)
            option++;
        if (option == known || index + 1 == count)
            die("unknown option, or one without a value: %s", arguments[index]);
        char *rest;
        long value = strtol(arguments[index + 1], &rest, 10);
        if (*rest != '\0' || rest == arguments[index + 1] || value < options[option].least)
            die("%s must be a number of at least %ld", arguments[index], options[option].least);
        *options[option].value = value;
    }
    if (settings.port == 0)
        die("--port is missing");
}

static void prepare(void)
{
    run.epoll = epoll_create1(EPOLL_CLOEXEC);
    run.last_packet = now_ns();
    run.give_up = run.last_packet + (uint64_t)settings.deadline * 1000000000u;
    run.names = checked(calloc((size_t)settings.functions, NAME));
    for (long function = 0; function < settings.functions; function++)
        snprintf(run.names[function], NAME, "bench%05u", (unsigned)function % 100000);
    run.payload = checked(malloc((size_t)settings.payload));
    for (long index = 0; index < settings.payload; index++)
        run.payload[index] = (unsigned char)scatter((uint64_t)index);
}

static void on_alarm(int signal)
{
    static const char text[] = "load: hangs past its deadline: the server accepts no connections\n";
    (void)signal;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(1);
}

int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } shapes[] = {
        {"submit", submit},   {"drain", drain}, {"foreground", foreground},
        {"through", through}, {"echo", echo},   {"idle", idle},
    };
    size_t shape = 0, known = sizeof shapes / sizeof *shapes;
    while (count > 1 && shape < known && strcmp(shapes[shape].name, arguments[1]) != 0)
        shape++;
    if (count < 2 || shape == known)
        die("usage: load submit|drain|foreground|through|echo|idle --port PORT [--jobs N] ...");
    read_options(count - 2, arguments + 2);
    prepare();
    signal(SIGALRM, on_alarm);
    alarm((unsigned)settings.deadline + 5);
    shapes[shape].run();
    if (shapes[shape].run != idle)
        report(shapes[shape].name, settings.jobs, run.latencies, run.latency_count, run.noops);
    return 0;
}
