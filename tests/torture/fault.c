/* Preloaded into the program under test: counts the calls that change files below LAPWING_FAULT_DIR, and at the n-th
 * does what LAPWING_FAULT says:
 *   kill:N         ends the process with SIGKILL instead of the N-th call
 *   eio:N          the N-th call fails with EIO and does nothing
 *   enospc:N       the N-th call fails with ENOSPC and does nothing
 *   slow:MS        every fdatasync takes so many milliseconds more
 *   nosync:0       no fdatasync and no fsync is done: what durability costs is what is missing then
 * It says "fault met" on standard error when the call came. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static ssize_t (*real_write)(int, const void *, size_t);
static const char *dir;
static size_t dir_len;
static enum { NONE, KILL, EIO_AT, ENOSPC_AT, SLOW, NOSYNC } mode;
static long at;
static atomic_long calls;

__attribute__((constructor)) static void init(void) {
  real_write = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
  const char *fault = getenv("LAPWING_FAULT");
  dir = getenv("LAPWING_FAULT_DIR");
  if (!fault || !dir) return;
  dir_len = strlen(dir);
  const char *colon = strchr(fault, ':');
  if (!colon) return;
  at = atol(colon + 1);
  if (!strncmp(fault, "kill", 4)) mode = KILL;
  else if (!strncmp(fault, "eio", 3)) mode = EIO_AT;
  else if (!strncmp(fault, "enospc", 6)) mode = ENOSPC_AT;
  else if (!strncmp(fault, "slow", 4)) mode = SLOW;
  else if (!strncmp(fault, "nosync", 6)) mode = NOSYNC;
}

static int below(const char *path) { return mode != NONE && path && !strncmp(path, dir, dir_len); }

static int fd_below(int fd) {
  char link[64], path[4096];
  if (mode == NONE) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return below(path);
}

/* Whether this call must fail; errno is set then. */
static int hit(int ours) {
  if (!ours || mode == SLOW || mode == NOSYNC) return 0;
  if (atomic_fetch_add(&calls, 1) + 1 != at) return 0;
  static const char met[] = "fault met\n";
  (void)!real_write(2, met, sizeof met - 1);
  if (mode == KILL) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }
  errno = mode == EIO_AT ? EIO : ENOSPC;
  return 1;
}

#define REAL(type, name, ...)                                   \
  static type (*real)(__VA_ARGS__);                             \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *b, size_t n) {
  return hit(fd_below(fd)) ? -1 : real_write(fd, b, n);
}
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) {
  REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
  return hit(fd_below(fd)) ? -1 : real(fd, b, n, o);
}
int ftruncate64(int fd, off64_t n) {
  REAL(int, "ftruncate64", int, off64_t);
  return hit(fd_below(fd)) ? -1 : real(fd, n);
}
int fsync(int fd) {
  REAL(int, "fsync", int);
  if (mode == NOSYNC && fd_below(fd)) return 0;
  return hit(fd_below(fd)) ? -1 : real(fd);
}
int fdatasync(int fd) {
  REAL(int, "fdatasync", int);
  if (mode == NOSYNC && fd_below(fd)) return 0;
  if (mode == SLOW && fd_below(fd)) {
    struct timespec t = {at / 1000, at % 1000 * 1000000};
    nanosleep(&t, NULL);
  }
  return hit(fd_below(fd)) ? -1 : real(fd);
}
int rename(const char *a, const char *b) {
  REAL(int, "rename", const char *, const char *);
  return hit(below(b)) ? -1 : real(a, b);
}
int unlink(const char *p) {
  REAL(int, "unlink", const char *);
  return hit(below(p)) ? -1 : real(p);
}
int open64(const char *p, int flags, ...) {
  REAL(int, "open64", const char *, int, ...);
  va_list more;
  va_start(more, flags);
  mode_t m = va_arg(more, mode_t);
  va_end(more);
  return (flags & O_CREAT) && hit(below(p)) ? -1 : real(p, flags, m);
}
