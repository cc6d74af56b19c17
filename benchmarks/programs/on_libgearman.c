/* A client on libgearman that submits many jobs at once, which its `gearman` tool cannot.
 *
 * Built on the spot with `cc -O2 -lgearman` where the library's headers are installed. Called as
 *
 *     on_libgearman PORT JOBS
 *
 * it submits offline jobs as tasks, a thousand for each gearman_client_run_tasks, and prints what
 * clock.py prints for the programs in Python. Function, payload and batch are those of clock.py.
 */
#include <libgearman-1.0/gearman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCH = 1000, PAYLOAD = 64 };

static char data[PAYLOAD];

static double now(clockid_t which) {
    struct timespec time;
    clock_gettime(which, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void check(gearman_client_st *client, gearman_return_t outcome) {
    if (gearman_failed(outcome)) {
        fprintf(stderr, "on_libgearman: %s\n", gearman_client_error(client));
        exit(1);
    }
}

static void submit(gearman_client_st *client, long jobs) {
    for (long job = 0; job < jobs; job++) {
        gearman_return_t outcome;
        gearman_client_add_task_background(client, NULL, NULL, "bench00000", NULL, data, sizeof data, &outcome);
        check(client, outcome);
    }
    check(client, gearman_client_run_tasks(client));
    gearman_client_task_free_all(client);
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: on_libgearman PORT JOBS\n");
        return 2;
    }
    long jobs = atol(arguments[2]);
    memset(data, 'x', sizeof data);
    gearman_client_st *client = gearman_client_create(NULL);
    check(client, gearman_client_add_server(client, "127.0.0.1", (in_port_t)atoi(arguments[1])));
    submit(client, 1);
    double began = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    for (long done = 0; done < jobs; done += BATCH)
        submit(client, BATCH);
    double ended = now(CLOCK_MONOTONIC);
    printf("{\"jobs\": %ld, \"seconds\": %.9f, \"cpu\": %.9f}\n", jobs, ended - began,
           now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    gearman_client_free(client);
    return 0;
}
