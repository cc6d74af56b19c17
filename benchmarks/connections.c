/* A connection for each job, jobs over HTTP, and workers that write twice: programs as they are, with blocking
 * sockets.
 *
 * Lives here: threads that do one thing after the other, as a PHP page or a simple worker does, and what is
 * measured of them. Never here: how much (workloads.py), starting servers (servers.py), comparing (run.py).
 *
 * Built on the spot with `cc -O2`, and with `-DTLS -lssl -lcrypto` where OpenSSL is there. Called as
 *
 *     connections SHAPE --port PORT --jobs N [--clients N] [--unix PATH] [--tls 0|1|2] [--workers N]
 *                       [--path PATH] [--keep-alive 0|1] [--lines N]
 *
 * it prints one JSON object on standard output and exits 0, as load.c does. When the server answers with
 * anything unexpected, it says so on standard error and exits 1.
 *
 * - `connect`: each thread connects, submits a background job, reads JOB_CREATED and closes, again and again.
 *   With `--tls 1` each connection makes a full handshake, with `--tls 2` it resumes the session of the
 *   thread's connection before, if the server lets it.
 * - `http`: each thread submits a background job by a POST to `--path` and reads the answer, again and again,
 *   on a connection that is used again if `--keep-alive` is 1 and the server does so too. With `--lines` a
 *   request has so many jobs, each a line of JSON, and the answer a line for each.
 * - `two-writes`: workers drain a queue that was filled ahead of the clock. Each sends WORK_COMPLETE and
 *   GRAB_JOB by two writes, without TCP_NODELAY, as many libraries do.
 *
 * The number of jobs is fixed, not the time. The clock starts when all threads are ready.
 */
#define _GNU_SOURCE
#include "measure.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#ifdef TLS
#include <openssl/ssl.h>
#endif

enum {
    CAN_DO = 1,
    JOB_CREATED = 8,
    GRAB_JOB = 9,
    NO_JOB = 10,
    JOB_ASSIGN = 11,
    WORK_COMPLETE = 13,
    SUBMIT_JOB_BG = 18,
    HEADER = 12,
    LARGEST = 4096,
};

static const char FUNCTION[] = "bench";

static struct {
    long port, jobs, clients, workers, payload, tls, keep_alive, lines, server_pid, deadline;
    const char *unix_path, *path;
} settings = {.jobs = 1000, .clients = 8, .workers = 8, .payload = 64, .deadline = 120};

static const struct {
    const char *name;
    long *value;
} numbers[] = {
    {"--port", &settings.port},
    {"--jobs", &settings.jobs},
    {"--clients", &settings.clients},       /* threads that submit */
    {"--workers", &settings.workers},       /* threads that work */
    {"--payload", &settings.payload},       /* bytes */
    {"--tls", &settings.tls},               /* 1: a handshake each; 2: resumed sessions */
    {"--keep-alive", &settings.keep_alive}, /* over HTTP: 1 for a connection that is used again */
    {"--lines", &settings.lines},           /* over HTTP: jobs of a request; 0 for one that is no JSON */
    {"--server-pid", &settings.server_pid}, /* whose CPU time to measure */
    {"--deadline", &settings.deadline},     /* seconds for the whole run */
};

static const struct {
    const char *name;
    const char **value;
} texts[] = {
    {"--unix", &settings.unix_path}, /* a socket's file, in place of the port */
    {"--path", &settings.path},      /* where jobs are posted over HTTP */
};

static atomic_long begun, resumed;
static uint64_t *latencies;
static pthread_barrier_t ready;

/* -- one connection ---------------------------------------------------------------------------- */

struct peer {
    int fd;
#ifdef TLS
    SSL *tls;
#endif
};

#ifdef TLS
static SSL_CTX *context;
static _Thread_local SSL_SESSION *session;

/* A ticket of TLS 1.3 comes behind the handshake. It is for one use. */
static int keep_session(SSL *tls, SSL_SESSION *fresh)
{
    (void)tls;
    SSL_SESSION_free(session);
    session = fresh;
    return 1;
}

static void begin_tls(struct peer *peer)
{
    peer->tls = SSL_new(context);
    if (session != NULL && settings.tls == 2)
        SSL_set_session(peer->tls, session);
    if (!SSL_set_fd(peer->tls, peer->fd) || SSL_connect(peer->tls) != 1)
        die("the TLS handshake failed");
    resumed += SSL_session_reused(peer->tls);
}
#endif

static int connected_socket(void)
{
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_port = htons((uint16_t)settings.port)};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr *address = (struct sockaddr *)&tcp;
    socklen_t size = sizeof tcp;
    tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (settings.unix_path != NULL) {
        strncpy(local.sun_path, settings.unix_path, sizeof local.sun_path - 1);
        address = (struct sockaddr *)&local;
        size = sizeof local;
    }
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, address, size) < 0)
        die("cannot connect: %s", strerror(errno));
    return fd;
}

static struct peer open_peer(void)
{
    struct peer peer = {.fd = connected_socket()};
#ifdef TLS
    if (settings.tls)
        begin_tls(&peer);
#endif
    return peer;
}

static void close_peer(struct peer *peer)
{
#ifdef TLS
    if (settings.tls) {
        SSL_shutdown(peer->tls);
        SSL_free(peer->tls);
    }
#endif
    close(peer->fd);
}

static void put(struct peer *peer, const void *data, size_t size)
{
#ifdef TLS
    if (settings.tls) {
        if (SSL_write(peer->tls, data, (int)size) != (int)size)
            die("writing over TLS failed");
        return;
    }
#endif
    if (send(peer->fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
        die("sending: %s", strerror(errno));
}

static size_t get(struct peer *peer, void *data, size_t size)
{
    ssize_t got;
#ifdef TLS
    if (settings.tls)
        got = SSL_read(peer->tls, data, (int)size);
    else
#endif
        got = recv(peer->fd, data, size, 0);
    if (got <= 0)
        die("the server closed a connection");
    return (size_t)got;
}

/* -- packets ----------------------------------------------------------------------------------- */

struct packet {
    unsigned type;
    size_t size;
    unsigned char body[LARGEST];
};

static size_t put_header(unsigned char *at, unsigned type, size_t size)
{
    uint32_t fields[2] = {htonl(type), htonl((uint32_t)size)};
    memcpy(at, "\0REQ", 4);
    memcpy(at + 4, fields, sizeof fields);
    return HEADER + size;
}

/* The next packet; nothing that comes behind it is read. */
static void get_packet(struct peer *peer, struct packet *packet)
{
    unsigned char data[HEADER + LARGEST];
    uint32_t fields[2];
    size_t have = 0, wanted = HEADER;
    while (have < wanted) {
        have += get(peer, data + have, wanted - have);
        if (have < HEADER)
            continue;
        memcpy(fields, data + 4, sizeof fields);
        wanted = HEADER + ntohl(fields[1]);
        if (wanted > sizeof data)
            die("a packet of the server is too large");
    }
    packet->type = ntohl(fields[0]);
    packet->size = wanted - HEADER;
    memcpy(packet->body, data + HEADER, packet->size);
}

static void expect(const struct packet *packet, unsigned type)
{
    if (packet->type != type)
        die("packet type %u came, and not %u", packet->type, type);
}

static size_t submit_packet(unsigned char *at)
{
    size_t names = sizeof FUNCTION + 1;
    memcpy(at + HEADER, FUNCTION, sizeof FUNCTION);
    at[HEADER + sizeof FUNCTION] = '\0';
    memset(at + HEADER + names, 'x', (size_t)settings.payload);
    return put_header(at, SUBMIT_JOB_BG, names + (size_t)settings.payload);
}

/* -- shape: connect ---------------------------------------------------------------------------- */

static void submit_one(const unsigned char *request, size_t size, struct packet *packet)
{
    struct peer peer = open_peer();
    put(&peer, request, size);
    get_packet(&peer, packet);
    expect(packet, JOB_CREATED);
    close_peer(&peer);
}

static void *run_client(void *unused)
{
    unsigned char request[LARGEST];
    struct packet packet;
    size_t size = submit_packet(request);
    long job;
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&ready);
    while ((job = begun++) < settings.jobs) {
        uint64_t since = now_ns();
        submit_one(request, size, &packet);
        latencies[job] = now_ns() - since;
    }
    return unused;
}

/* -- shape: http ------------------------------------------------------------------------------- */

enum {
    HEAD_SIZE = 512,
    ANSWER_SIZE = 64 * 1024,
};

struct request {
    size_t size;
    char *text;
};

/* The unique is the job's own, as gearmand takes jobs without one and with the same data for one job. */
static void make_request(struct request *request, long job, long lines)
{
    static const char LINE[] = "{\"data\":\"%.*s\"}\n";
    char payload[LARGEST];
    memset(payload, 'x', (size_t)settings.payload);
    size_t line = sizeof LINE - 1 - strlen("%.*s") + (size_t)settings.payload;
    size_t body = lines ? line * (size_t)lines : (size_t)settings.payload;
    request->text = realloc(request->text, HEAD_SIZE + body + 1);
    if (request->text == NULL)
        die("out of memory");
    int head = snprintf(request->text, HEAD_SIZE,
                        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%ld\r\nConnection: %s\r\n"
                        "X-Gearman-Background: true\r\n%s",
                        settings.path, settings.port, settings.keep_alive ? "keep-alive" : "close",
                        lines ? "Content-Type: application/x-ndjson\r\n" : "");
    if (!lines)
        head += snprintf(request->text + head, HEAD_SIZE - (size_t)head, "X-Gearman-Unique: %ld\r\n", job);
    head += snprintf(request->text + head, HEAD_SIZE - (size_t)head, "Content-Length: %zu\r\n\r\n", body);
    char *at = request->text + head;
    for (long index = 0; index < lines; index++)
        at += sprintf(at, LINE, (int)settings.payload, payload);
    if (!lines)
        memcpy(at, payload, body);
    request->size = (size_t)head + body;
}

/* Reads one answer, and says whether the connection can be used again. Dies unless each job has a handle. */
static bool read_answer(struct peer *peer, long lines)
{
    static _Thread_local char text[ANSWER_SIZE + 1];
    size_t have = 0, wanted = 0, head = 0;
    long accepted = 0;
    bool again = false, chunked = false;
    for (;;) {
        have += get(peer, text + have, ANSWER_SIZE - have);
        text[have] = '\0';
        if (head == 0) {
            char *end = strstr(text, "\r\n\r\n"), *length = strcasestr(text, "\nContent-Length:");
            if (end == NULL)
                continue;
            if (strncmp(text, "HTTP/1.", 7) != 0 || text[9] != '2')
                die("the server answers: %.200s", text);
            head = (size_t)(end - text) + 4;
            again = text[7] == '1' && strcasestr(text, "\nConnection: close") == NULL;
            chunked = length == NULL || length > end;
            wanted = chunked ? 0 : head + strtoul(length + strlen("\nContent-Length:"), NULL, 10);
            if (!lines && strcasestr(text, "\nX-Gearman-Job-Handle:") == NULL)
                die("the server answers without a handle: %.200s", text);
        }
        if (!chunked) {
            if (have >= wanted)
                return again;
            continue;
        }
        /* Whole lines are counted and dropped. What is left is a part of one, or the last chunk. */
        char *last = memrchr(text, '\n', have);
        for (char *at = text; last != NULL && (at = strstr(at, "\"handle\"")) != NULL && at < last; at++)
            accepted++;
        bool ends = have >= 5 && memcmp(text + have - 5, "0\r\n\r\n", 5) == 0;
        if (ends && accepted != lines)
            die("%ld of %ld lines were accepted", accepted, lines);
        if (ends)
            return again;
        size_t done = last == NULL ? 0 : (size_t)(last - text) + 1;
        /* The end of a chunk may come in two reads. */
        done = done > 5 ? done - 5 : 0;
        memmove(text, text + done, have - done);
        have -= done;
    }
}

static void *run_http_client(void *unused)
{
    struct request request = {0};
    struct peer peer = {.fd = -1};
    long job, step = settings.lines ? settings.lines : 1;
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&ready);
    while ((job = (begun += step) - step) < settings.jobs) {
        long lines = settings.lines < settings.jobs - job ? settings.lines : settings.jobs - job;
        if (!settings.lines || request.text == NULL || lines != settings.lines)
            make_request(&request, job, settings.lines ? lines : 0);
        uint64_t since = now_ns();
        if (peer.fd < 0)
            peer = open_peer();
        put(&peer, request.text, request.size);
        if (!read_answer(&peer, settings.lines ? lines : 0)) {
            close_peer(&peer);
            peer.fd = -1;
        }
        for (long index = 0; index < (settings.lines ? lines : 1); index++)
            latencies[job + index] = now_ns() - since;
    }
    free(request.text);
    return unused;
}

/* -- shape: two-writes ------------------------------------------------------------------------- */

static void fill_queue(void)
{
    unsigned char request[LARGEST];
    struct packet packet;
    size_t size = submit_packet(request);
    struct peer peer = open_peer();
    for (long job = 0; job < settings.jobs + settings.workers; job++) {
        put(&peer, request, size);
        get_packet(&peer, &packet);
        expect(&packet, JOB_CREATED);
    }
    close_peer(&peer);
}

static void *run_worker(void *unused)
{
    unsigned char can_do[HEADER + sizeof FUNCTION], grab[HEADER], report[HEADER + LARGEST];
    struct packet packet;
    struct peer peer = open_peer();
    memcpy(can_do + HEADER, FUNCTION, sizeof FUNCTION - 1);
    put(&peer, can_do, put_header(can_do, CAN_DO, sizeof FUNCTION - 1));
    put_header(grab, GRAB_JOB, 0);
    put(&peer, grab, HEADER);
    get_packet(&peer, &packet);
    pthread_barrier_wait(&ready);
    pthread_barrier_wait(&ready);
    long job;
    while ((job = begun++) < settings.jobs) {
        uint64_t since = now_ns();
        expect(&packet, JOB_ASSIGN);
        size_t handle = strnlen((char *)packet.body, packet.size) + 1;
        memcpy(report + HEADER, packet.body, handle);
        put(&peer, report, put_header(report, WORK_COMPLETE, handle));
        put(&peer, grab, HEADER);
        get_packet(&peer, &packet);
        latencies[job] = now_ns() - since;
    }
    close_peer(&peer);
    return unused;
}

/* -- command line ------------------------------------------------------------------------------ */

static void read_options(int count, char **arguments)
{
    for (int index = 0; index < count; index += 2) {
        size_t option = 0, known = sizeof numbers / sizeof *numbers;
        if (index + 1 == count)
            die("an option without a value: %s", arguments[index]);
        size_t text = 0, known_texts = sizeof texts / sizeof *texts;
        while (text < known_texts && strcmp(texts[text].name, arguments[index]) != 0)
            text++;
        if (text < known_texts) {
            *texts[text].value = arguments[index + 1];
            continue;
        }
        while (option < known && strcmp(numbers[option].name, arguments[index]) != 0)
            option++;
        if (option == known)
            die("unknown option: %s", arguments[index]);
        *numbers[option].value = strtol(arguments[index + 1], NULL, 10);
    }
    if (settings.port == 0 || settings.jobs < 1 || settings.payload > LARGEST / 2)
        die("--port and --jobs must be given, and --payload be at most %d", LARGEST / 2);
}

static void prepare_tls(void)
{
    if (!settings.tls)
        return;
#ifdef TLS
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, keep_session);
#else
    die("built without TLS");
#endif
}

static const struct {
    const char *name;
    void *(*run)(void *);
} shapes[] = {
    {"connect", run_client},
    {"http", run_http_client},
    {"two-writes", run_worker},
};

int main(int count, char **arguments)
{
    size_t chosen = 0, known = sizeof shapes / sizeof *shapes;
    while (chosen < known && (count < 2 || strcmp(arguments[1], shapes[chosen].name) != 0))
        chosen++;
    if (chosen == known)
        die("usage: connections connect|http|two-writes --port PORT --jobs N ...");
    bool works = shapes[chosen].run == run_worker;
    read_options(count - 2, arguments + 2);
    if (shapes[chosen].run == run_http_client && settings.path == NULL)
        die("--path must be given");
    prepare_tls();
    signal(SIGPIPE, SIG_IGN);
    /* SIGALRM ends the process: a server that does not answer must not hold up the rest. */
    alarm((unsigned)settings.deadline);
    long threads = works ? settings.workers : settings.clients;
    pthread_t *made = calloc((size_t)threads, sizeof *made);
    latencies = calloc((size_t)settings.jobs, sizeof *latencies);
    if (made == NULL || latencies == NULL)
        die("out of memory");
    pthread_barrier_init(&ready, NULL, (unsigned)threads + 1);
    if (works)
        fill_queue();
    for (long index = 0; index < threads; index++)
        if (pthread_create(&made[index], NULL, shapes[chosen].run, NULL) != 0)
            die("cannot make a thread");
    pthread_barrier_wait(&ready);
    start_clock(settings.server_pid);
    pthread_barrier_wait(&ready);
    for (long index = 0; index < threads; index++)
        pthread_join(made[index], NULL);
    stop_clock(settings.server_pid);
    if (settings.tls == 2 && resumed == 0)
        fputs("load: the server has resumed no session\n", stderr);
    report(arguments[1], settings.jobs, latencies, settings.jobs, 0);
    return 0;
}
