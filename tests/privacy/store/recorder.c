/* Preloaded into a process: writes down what it does to the files of one folder, and what it asks to be durable.
 *
 * RECORDED is the folder, RECORD the file to write to. A record is a line "KIND NAME OFFSET LENGTH", for W followed by
 * LENGTH bytes: C created, W written, T cut to OFFSET bytes, S synced, U unlinked. The folder itself is called ".".
 * Shared memory (-shm) is left out: it is nothing that a disk keeps. One thread only.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define DESCRIPTORS 4096
static char names[DESCRIPTORS][64];
static const char *folder;
static int out = -1;

__attribute__((constructor)) static void start(void) {
    folder = getenv("RECORDED");
    if (folder && getenv("RECORD"))
        out = (int)syscall(SYS_openat, AT_FDCWD, getenv("RECORD"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void all(const void *data, size_t length) {
    while (length > 0) {
        ssize_t done = syscall(SYS_write, out, data, length);
        if (done <= 0)
            abort();
        data = (const char *)data + done;
        length -= (size_t)done;
    }
}

static void record(char kind, const char *name, off_t offset, const void *data, size_t length) {
    char line[128];
    all(line, (size_t)snprintf(line, sizeof line, "%c %s %lld %zu\n", kind, name, (long long)offset, length));
    all(data, length);
}

/* The name of a file in the folder, or NULL. */
static const char *inside(const char *path) {
    size_t length = folder ? strlen(folder) : 0;
    if (out < 0 || !length || strncmp(path, folder, length))
        return NULL;
    if (!path[length])
        return ".";
    size_t rest = strlen(path);
    if (path[length] != '/' || rest - length > 60 || (rest > 4 && !strcmp(path + rest - 4, "-shm")))
        return NULL;
    return path + length + 1;
}

static const char *of(int fd) { return out >= 0 && fd >= 0 && fd < DESCRIPTORS && *names[fd] ? names[fd] : NULL; }

#define REAL(name, type) ((type)dlsym(RTLD_NEXT, name))

static int opened(const char *symbol, const char *path, int flags, mode_t mode) {
    const char *name = inside(path);
    int absent = name && (flags & O_CREAT) && syscall(SYS_faccessat, AT_FDCWD, path, F_OK) != 0;
    int fd = REAL(symbol, int (*)(const char *, int, ...))(path, flags, mode);
    if (fd >= 0 && fd < DESCRIPTORS)
        snprintf(names[fd], sizeof names[fd], "%s", name ? name : "");
    if (fd >= 0 && absent)
        record('C', name, 0, "", 0);
    return fd;
}

#define OPEN(symbol)                              \
    int symbol(const char *path, int flags, ...) { \
        va_list more;                              \
        va_start(more, flags);                     \
        mode_t mode = va_arg(more, mode_t);        \
        va_end(more);                              \
        return opened(#symbol, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define PWRITE(symbol, type)                                                                              \
    ssize_t symbol(int fd, const void *data, size_t length, type offset) {                                \
        ssize_t done = REAL(#symbol, ssize_t(*)(int, const void *, size_t, type))(fd, data, length, offset); \
        if (done > 0 && of(fd))                                                                           \
            record('W', of(fd), offset, data, (size_t)done);                                              \
        return done;                                                                                      \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t length) {
    ssize_t done = REAL("write", ssize_t(*)(int, const void *, size_t))(fd, data, length);
    if (done > 0 && of(fd))
        record('W', of(fd), lseek(fd, 0, SEEK_CUR) - done, data, (size_t)done);
    return done;
}

#define TRUNCATE(symbol, type)                                     \
    int symbol(int fd, type length) {                              \
        int failed = REAL(#symbol, int (*)(int, type))(fd, length); \
        if (!failed && of(fd))                                     \
            record('T', of(fd), length, "", 0);                    \
        return failed;                                             \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define SYNC(symbol)                                   \
    int symbol(int fd) {                               \
        int failed = REAL(#symbol, int (*)(int))(fd);  \
        if (!failed && of(fd))                         \
            record('S', of(fd), 0, "", 0);             \
        return failed;                                 \
    }
SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *path) {
    int failed = REAL("unlink", int (*)(const char *))(path);
    if (!failed && inside(path))
        record('U', inside(path), 0, "", 0);
    return failed;
}

int close(int fd) {
    if (fd >= 0 && fd < DESCRIPTORS)
        *names[fd] = 0;
    return REAL("close", int (*)(int))(fd);
}
