/* Faults in what a process does to the files of one folder, by LD_PRELOAD (Linux).
 *
 * Every call that opens, makes, writes, syncs, renames, links, cuts or removes something in the folder is an
 * operation, and has a number, from 1. fault_arm() says at which number what happens. Only the process that
 * armed it counts. Written to the log, an operation is a line "<name> <path>"; a fault "! <name> <path>".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum mode {
    COUNT,   /* nothing happens */
    KILL,    /* SIGKILL instead of the operation */
    TORN,    /* half of a write, then SIGKILL; of anything else nothing, then SIGKILL */
    SHORT,   /* half of a write, which says so */
    ONCE,    /* the operation fails with `number`, the later ones do not */
    FULL,    /* what needs space fails with `number` from here on */
    BROKEN,  /* everything fails with `number` from here on */
    RAISE,   /* signal `number` comes before the operation */
};

enum need { SPACE, NO_SPACE };

static char folder[PATH_MAX];
static int armed_by, mode, number, log_file = -1;
static long at, count;

/* Begins to count. `path` is absolute and without links; the log gets every operation. */
void fault_arm(const char *path, int log, int what, long when, int which) {
    snprintf(folder, sizeof folder, "%s", path);
    mode = what, at = when, number = which, log_file = log, count = 0;
    armed_by = getpid();
}

static void of_descriptor(int fd, char *found) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, found, PATH_MAX - 1);
    found[length < 0 ? 0 : length] = 0;
}

static void absolute(int at_fd, const char *path, char found[2 * PATH_MAX]) {
    char base[PATH_MAX] = "";
    if (path[0] != '/') {
        if (at_fd != AT_FDCWD) of_descriptor(at_fd, base);
        else if (!getcwd(base, sizeof base)) base[0] = 0;
    }
    snprintf(found, 2 * PATH_MAX, "%s%s%s", base, *base ? "/" : "", path);
}

static void note(const char *mark, const char *name, const char *path) {
    char line[3 * PATH_MAX];
    int length = snprintf(line, sizeof line, "%s%s %s\n", mark, name, path + strlen(folder));
    if (log_file >= 0 && syscall(SYS_write, log_file, line, length) != length) abort();
}

/* What happens to an operation: 0 goes on, -1 is half of it, everything else is the errno it fails with. */
static int fate(const char *name, const char *path, enum need need) {
    size_t length = strlen(folder);
    if (!length || armed_by != getpid()) return 0;
    if (strncmp(path, folder, length) || (path[length] && path[length] != '/')) return 0;
    long mine = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    note("", name, path);
    if (mode == FULL || mode == BROKEN) {
        if (mine < at || (mode == FULL && need == NO_SPACE)) return 0;
        note("! ", name, path);
        return number;
    }
    if (mode == COUNT || mine != at) return 0;
    note("! ", name, path);
    if (mode == KILL || (mode == TORN && strcmp(name, "write"))) kill(getpid(), SIGKILL);
    if (mode == RAISE) kill(getpid(), number);
    return mode == ONCE ? number : mode == RAISE ? 0 : -1;
}

#define FAIL_AT(at_fd, path, name, need, failed) \
    do { \
        char full[2 * PATH_MAX]; \
        absolute(at_fd, path, full); \
        int error = fate(name, full, need); \
        if (error > 0) { errno = error; return failed; } \
    } while (0)

#define FAIL_FD(fd, name, need) \
    do { \
        char full[PATH_MAX]; \
        of_descriptor(fd, full); \
        int error = fate(name, full, need); \
        if (error > 0) { errno = error; return -1; } \
    } while (0)

/* ---- opening: making a file needs space, opening one that is there does not ---- */

static int open_at(int at_fd, const char *path, int flags, va_list rest) {
    struct stat found;
    int makes = (flags & O_CREAT) && fstatat(at_fd, path, &found, AT_SYMLINK_NOFOLLOW);
    mode_t permissions = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, mode_t) : 0;
    FAIL_AT(at_fd, path, makes ? "create" : "open", makes ? SPACE : NO_SPACE, -1);
    return syscall(SYS_openat, at_fd, path, flags, permissions);
}

#define OPEN(function) \
    int function(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        int fd = open_at(AT_FDCWD, path, flags, rest); \
        va_end(rest); \
        return fd; \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(function) \
    int function(int at_fd, const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        int fd = open_at(at_fd, path, flags, rest); \
        va_end(rest); \
        return fd; \
    }
OPENAT(openat)
OPENAT(openat64)

/* C++ streams open so */
#define FOPEN(function) \
    FILE *function(const char *path, const char *how) { \
        static FILE *(*real)(const char *, const char *); \
        if (!real) real = (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, #function); \
        int makes = *how != 'r'; \
        FAIL_AT(AT_FDCWD, path, makes ? "create" : "open", makes ? SPACE : NO_SPACE, NULL); \
        return real(path, how); \
    }
FOPEN(fopen)
FOPEN(fopen64)

/* ---- writing ---- */

ssize_t write(int fd, const void *data, size_t size) {
    char path[PATH_MAX];
    of_descriptor(fd, path);
    int error = fate("write", path, SPACE);
    if (error > 0) {
        errno = error;
        return -1;
    }
    if (error == 0) return syscall(SYS_write, fd, data, size);
    ssize_t half = syscall(SYS_write, fd, data, size > 1 ? size / 2 : size);
    if (mode == TORN) kill(getpid(), SIGKILL);
    return half;
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    FAIL_FD(fd, "write", SPACE);
    return syscall(SYS_writev, fd, parts, n);
}

#define PWRITE(function) \
    ssize_t function(int fd, const void *data, size_t size, off64_t where) { \
        FAIL_FD(fd, "write", SPACE); \
        return syscall(SYS_pwrite64, fd, data, size, where); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define SENDFILE(function) \
    ssize_t function(int to, int from, off64_t *where, size_t size) { \
        FAIL_FD(to, "write", SPACE); \
        return syscall(SYS_sendfile, to, from, where, size); \
    }
SENDFILE(sendfile)
SENDFILE(sendfile64)

#define CUT(function) \
    int function(int fd, off64_t size) { \
        FAIL_FD(fd, "truncate", NO_SPACE); \
        return syscall(SYS_ftruncate, fd, size); \
    }
CUT(ftruncate)
CUT(ftruncate64)

/* ---- syncing ---- */

int fsync(int fd) {
    FAIL_FD(fd, "sync", NO_SPACE);
    return syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    FAIL_FD(fd, "sync", NO_SPACE);
    return syscall(SYS_fdatasync, fd);
}

/* ---- names ---- */

int mkdir(const char *path, mode_t permissions) {
    FAIL_AT(AT_FDCWD, path, "mkdir", SPACE, -1);
    return syscall(SYS_mkdirat, AT_FDCWD, path, permissions);
}

int mkdirat(int at_fd, const char *path, mode_t permissions) {
    FAIL_AT(at_fd, path, "mkdir", SPACE, -1);
    return syscall(SYS_mkdirat, at_fd, path, permissions);
}

int rename(const char *from, const char *to) {
    FAIL_AT(AT_FDCWD, to, "rename", NO_SPACE, -1);
    return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    FAIL_AT(to_fd, to, "rename", NO_SPACE, -1);
    return syscall(SYS_renameat2, from_fd, from, to_fd, to, 0);
}

int link(const char *from, const char *to) {
    FAIL_AT(AT_FDCWD, to, "link", SPACE, -1);
    return syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    FAIL_AT(to_fd, to, "link", SPACE, -1);
    return syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
}

int unlink(const char *path) {
    FAIL_AT(AT_FDCWD, path, "unlink", NO_SPACE, -1);
    return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int unlinkat(int at_fd, const char *path, int flags) {
    FAIL_AT(at_fd, path, "unlink", NO_SPACE, -1);
    return syscall(SYS_unlinkat, at_fd, path, flags);
}

int rmdir(const char *path) {
    FAIL_AT(AT_FDCWD, path, "unlink", NO_SPACE, -1);
    return syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}
