/* What a loss of power would take away: preloaded into a server, this keeps for each write to SQLite's files
 * what was there before, until the file is synced. power.py puts it back when the server was killed.
 *
 * Lives here: the calls of the C library that SQLite writes with, wrapped. A record goes to the file "undo"
 * beside the folder of the database ahead of the write; a sync leaves a record that all before it is safe. One
 * process with one database is assumed. The file -shm is mapped and never has to survive, so it is left out.
 *
 * With POWER_LOST_AFTER=N in its environment the process kills itself ahead of write N + 1. So it dies between
 * a write and its sync, where a kill from outside hits seldom.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SYNCED = 0, WRITTEN = 1, NAME = 32 };

struct record {
    uint32_t kind, length; /* of the old bytes that follow */
    uint64_t offset, size; /* of the file, before */
    char name[NAME];       /* within the folder */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static _Noreturn void die(const char *what)
{
    perror(what);
    abort();
}

/* The folder and name of one of the database's files; false for all other files. */
static int find_name(int fd, char *folder, char *name)
{
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, folder, PATH_MAX - 1);
    if (length <= 0)
        return 0;
    folder[length] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash == NULL || strlen(slash + 1) >= NAME)
        return 0;
    strcpy(name, slash + 1);
    *slash = '\0';
    return strcmp(name, "queue.db") == 0 || strcmp(name, "queue.db-wal") == 0 ||
           strcmp(name, "queue.db-journal") == 0;
}

/* Add a record; returns 0, or -1 where files may not grow: then the call that is wrapped fails for that. */
static int add(const char *folder, const struct record *record, const void *old)
{
    char path[PATH_MAX + 16];
    struct stat before;
    int result = 0;
    snprintf(path, sizeof path, "%s/../undo", folder); /* the folder's own disk may be full */
    int undo = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (undo < 0 || fstat(undo, &before) < 0)
        die("undo");
    if (REAL(write)(undo, record, sizeof *record) != sizeof *record ||
        REAL(write)(undo, old, record->length) != (ssize_t)record->length) {
        if (REAL(ftruncate)(undo, before.st_size) < 0)
            die("undo");
        errno = ENOSPC;
        result = -1;
    }
    close(undo);
    return result;
}

/* Die here if as many writes have been done as the environment lets. */
static void lose_power(void)
{
    static long done = 0;
    const char *most = getenv("POWER_LOST_AFTER");
    if (most != NULL && done++ >= atol(most))
        raise(SIGKILL);
}

/* Keep `length` bytes at `offset`, and the size of the file; returns what `add` does. */
static int keep(int fd, off_t offset, size_t length)
{
    char folder[PATH_MAX];
    struct record record = {.kind = WRITTEN, .offset = (uint64_t)offset};
    struct stat about;
    if (!find_name(fd, folder, record.name))
        return 0;
    pthread_mutex_lock(&lock);
    lose_power();
    if (fstat(fd, &about) < 0)
        die("fstat");
    record.size = (uint64_t)about.st_size;
    char *old = malloc(length ? length : 1);
    if (old == NULL)
        die("malloc");
    ssize_t got = pread(fd, old, length, offset);
    record.length = got > 0 ? (uint32_t)got : 0;
    int result = add(folder, &record, old);
    free(old);
    pthread_mutex_unlock(&lock);
    return result;
}

static int forget(int fd)
{
    char folder[PATH_MAX];
    struct record record = {.kind = SYNCED};
    if (!find_name(fd, folder, record.name))
        return 0;
    pthread_mutex_lock(&lock);
    int result = add(folder, &record, "");
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    if (keep(fd, offset, size) < 0)
        return -1;
    return REAL(pwrite)(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    if (keep(fd, offset, size) < 0)
        return -1;
    return REAL(pwrite64)(fd, data, size, offset);
}

ssize_t write(int fd, const void *data, size_t size)
{
    if (fd > 2) {
        off_t offset = lseek(fd, 0, SEEK_CUR);
        if (offset >= 0 && keep(fd, offset, size) < 0)
            return -1;
    }
    return REAL(write)(fd, data, size);
}

static int keep_end(int fd, off_t size)
{
    struct stat about;
    if (fstat(fd, &about) < 0)
        return -1;
    return keep(fd, size, about.st_size > size ? (size_t)(about.st_size - size) : 0);
}

int ftruncate(int fd, off_t size)
{
    if (keep_end(fd, size) < 0)
        return -1;
    return REAL(ftruncate)(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    if (keep_end(fd, size) < 0)
        return -1;
    return REAL(ftruncate64)(fd, size);
}

int fsync(int fd)
{
    int result = REAL(fsync)(fd);
    return result < 0 ? result : forget(fd);
}

int fdatasync(int fd)
{
    int result = REAL(fdatasync)(fd);
    return result < 0 ? result : forget(fd);
}
