/* What the load generators measure: clocks, and the processor time of themselves, the server and the machine.
 *
 * Lives here: reading these, and failing. Never here: loads.
 */
#ifndef MEASURE_H
#define MEASURE_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static struct {
    double seconds, generator_cpu, server_cpu, server_kernel, machine_cpu;
} measured;

static _Noreturn __attribute__((format(printf, 1, 2))) void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static double own_cpu(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* CPU seconds of a process, all its threads, 0 for none; into `kernel` those of them that it was in the
 * kernel for. They are counted in hundredths of a second. */
static double server_cpu(long pid, double *kernel)
{
    char path[64], text[1024];
    *kernel = 0;
    if (pid == 0)
        return 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        die("the server (process %ld) is gone", pid);
    size_t got = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[got] = '\0';
    /* The second field is the program's name in parentheses and may hold anything. */
    char *behind_name = strrchr(text, ')');
    unsigned long user, system;
    const char *fields = ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu";
    if (behind_name == NULL || sscanf(behind_name, fields, &user, &system) != 2)
        die("cannot read %s", path);
    *kernel = (double)system / (double)sysconf(_SC_CLK_TCK);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* CPU seconds of everything on the machine, and what its host kept from it: shows who else was at work. */
static double machine_cpu(void)
{
    unsigned long long user, nice, system, interrupts, soft_interrupts, stolen;
    const char *fields = "cpu %llu %llu %llu %*u %*u %llu %llu %llu";
    FILE *file = fopen("/proc/stat", "r");
    if (file == NULL)
        die("cannot open /proc/stat");
    if (fscanf(file, fields, &user, &nice, &system, &interrupts, &soft_interrupts, &stolen) != 6)
        die("cannot read /proc/stat");
    fclose(file);
    unsigned long long busy = user + nice + system + interrupts + soft_interrupts + stolen;
    return (double)busy / (double)sysconf(_SC_CLK_TCK);
}

static void start_clock(long server_pid)
{
    measured.machine_cpu = machine_cpu();
    measured.server_cpu = server_cpu(server_pid, &measured.server_kernel);
    measured.generator_cpu = own_cpu();
    measured.seconds = (double)now_ns() / 1e9;
}

static void stop_clock(long server_pid)
{
    measured.seconds = (double)now_ns() / 1e9 - measured.seconds;
    measured.generator_cpu = own_cpu() - measured.generator_cpu;
    double kernel;
    measured.server_cpu = server_cpu(server_pid, &kernel) - measured.server_cpu;
    measured.server_kernel = kernel - measured.server_kernel;
    measured.machine_cpu = machine_cpu() - measured.machine_cpu;
}

static int by_size(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* The smallest of `count` sorted latencies that `share` of them did not exceed, in microseconds. */
static double percentile(const uint64_t *latencies, long count, double share)
{
    long rank = (long)(share * (double)count + 0.999999);
    return (double)latencies[rank > 0 ? rank - 1 : 0] / 1e3;
}

/* One JSON object with all that was measured. Sorts the latencies. */
static void report(const char *shape, long jobs, uint64_t *latencies, long count, long noops)
{
    printf("{\"shape\": \"%s\", \"jobs\": %ld, \"seconds\": %.6f, \"rate\": %.1f, ", shape, jobs,
           measured.seconds, (double)jobs / measured.seconds);
    if (count > 0) {
        qsort(latencies, (size_t)count, sizeof *latencies, by_size);
        printf("\"p50_us\": %.1f, \"p99_us\": %.1f, ", percentile(latencies, count, 0.50),
               percentile(latencies, count, 0.99));
    } else {
        printf("\"p50_us\": null, \"p99_us\": null, ");
    }
    printf("\"noops\": %ld, \"generator_cpu\": %.4f, \"server_cpu\": %.2f, \"server_kernel\": %.2f, "
           "\"machine_cpu\": %.2f}\n",
           noops, measured.generator_cpu, measured.server_cpu, measured.server_kernel,
           measured.machine_cpu);
}

#endif
