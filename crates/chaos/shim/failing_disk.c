/* Preloaded into a node: while the file that CRIBWORK_CHAOS_EIO names exists, writes to regular files
 * do not get to the disk and say so. If it begins with 's' only the calls that make data durable fail,
 * which is the hard case: the data may have been written, or may be gone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int failing(int fd, int is_sync) {
  const char *path = getenv("CRIBWORK_CHAOS_EIO");
  struct stat about;
  char mode = 0;
  int saved = errno, control;
  if (fd <= 2 || path == NULL || access(path, F_OK) != 0) {
    errno = saved;
    return 0;
  }
  control = open(path, O_RDONLY | O_CLOEXEC);
  if (control >= 0) {
    if (read(control, &mode, 1) != 1) mode = 'a';
    close(control);
  }
  errno = saved;
  if (!is_sync && mode == 's') return 0;
  return fstat(fd, &about) == 0 && S_ISREG(about.st_mode);
}

#define REAL(type, name, ...)                                                  \
  static type (*real)(__VA_ARGS__);                                            \
  if (real == NULL) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name);

#define REFUSE       \
  do {               \
    errno = EIO;     \
    return -1;       \
  } while (0)

int fsync(int fd) {
  REAL(int, "fsync", int)
  if (failing(fd, 1)) REFUSE;
  return real(fd);
}

int fdatasync(int fd) {
  REAL(int, "fdatasync", int)
  if (failing(fd, 1)) REFUSE;
  return real(fd);
}

ssize_t write(int fd, const void *bytes, size_t count) {
  REAL(ssize_t, "write", int, const void *, size_t)
  if (failing(fd, 0)) REFUSE;
  return real(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
  REAL(ssize_t, "pwrite", int, const void *, size_t, off_t)
  if (failing(fd, 0)) REFUSE;
  return real(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
  REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t)
  if (failing(fd, 0)) REFUSE;
  return real(fd, bytes, count, offset);
}
