/* Preloaded into a node: while the file that CRIBWORK_CHAOS_EIO names exists, writes to regular files
 * do not get to the disk and say so. If it begins with 's' only the calls that make data durable fail,
 * which is the hard case: the data may have been written, or may be gone. If it begins with 'l' these
 * calls lie: they do nothing and succeed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { REAL_CALL, REFUSE, LIE };

static int behaviour(int fd, int is_sync) {
  const char *path = getenv("CRIBWORK_CHAOS_EIO");
  struct stat about;
  char mode = 0;
  int saved = errno, control;
  if (fd <= 2 || path == NULL || access(path, F_OK) != 0) {
    errno = saved;
    return REAL_CALL;
  }
  control = open(path, O_RDONLY | O_CLOEXEC);
  if (control >= 0) {
    if (read(control, &mode, 1) != 1) mode = 'a';
    close(control);
  }
  errno = saved;
  if (!is_sync && (mode == 's' || mode == 'l')) return REAL_CALL;
  if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) return REAL_CALL;
  return mode == 'l' ? LIE : REFUSE;
}

#define REAL(type, name, ...)                                                  \
  static type (*real)(__VA_ARGS__);                                            \
  if (real == NULL) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name);

#define INSTEAD(fd, is_sync)          \
  switch (behaviour(fd, is_sync)) {   \
    case LIE:                         \
      return 0;                       \
    case REFUSE:                      \
      errno = EIO;                    \
      return -1;                      \
  }

int fsync(int fd) {
  REAL(int, "fsync", int)
  INSTEAD(fd, 1)
  return real(fd);
}

int fdatasync(int fd) {
  REAL(int, "fdatasync", int)
  INSTEAD(fd, 1)
  return real(fd);
}

ssize_t write(int fd, const void *bytes, size_t count) {
  REAL(ssize_t, "write", int, const void *, size_t)
  INSTEAD(fd, 0)
  return real(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
  REAL(ssize_t, "pwrite", int, const void *, size_t, off_t)
  INSTEAD(fd, 0)
  return real(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
  REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t)
  INSTEAD(fd, 0)
  return real(fd, bytes, count, offset);
}
