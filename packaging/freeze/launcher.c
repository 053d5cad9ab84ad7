/*
 * The static one-file binary: unpacks the one-folder bundle that is appended to it, once, and runs it.
 *
 * The bundle brings glibc and its loader, so that nothing of the host is needed but a writable folder that programs may be
 * started from. It is unpacked beside its final place and renamed, so that a place that exists is complete. A second start
 * finds it there. Who runs from a place holds a shared lock on its file ".lock"; places that nobody holds are removed when
 * another version is unpacked.
 *
 * File    this program, a ustar archive compressed with xz, and a trailer (see struct trailer); little-endian.
 * Errors  Exit code 1 and one line on the standard error.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <lzma.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MAGIC "EDGSITE2"
#define BLOCK 512
#define MEMORY_LIMIT (64u << 20)
#define PATH_BYTES 1024
#define BASE_BYTES 512 /* of the folder to unpack into: what is put behind it always fits */
#define WRITTEN_PATH_BYTES 256 /* of each placeholder, with its final zero */

struct trailer {
    char magic[8];
    uint64_t start;       /* of the compressed archive in this file */
    uint64_t size;        /* of the compressed archive */
    uint64_t interpreter; /* offset in the archive's "edgesite" of the loader's path, to be written when unpacked */
    uint64_t libraries;   /* the same of the path that the loader searches */
    char build[32];       /* name of the unpacked folder: digest of the archive */
};

struct input { /* the archive as a stream of bytes */
    int fd;
    uint64_t left;
    lzma_stream stream;
    uint8_t packed[65536];
};

static char problem[2 * PATH_BYTES]; /* the last reason why a place is of no use */

static int fail(const char *what, const char *path) {
    snprintf(problem, sizeof problem, "%s %s: %s", what, path, strerror(errno));
    return -1;
}

/* ---- reading ---- */

static int unpack_bytes(struct input *in, uint8_t *out, size_t size) {
    in->stream.next_out = out;
    in->stream.avail_out = size;
    while (in->stream.avail_out) {
        if (!in->stream.avail_in && in->left) {
            size_t wanted = in->left < sizeof in->packed ? in->left : sizeof in->packed;
            ssize_t got = read(in->fd, in->packed, wanted);
            if (got <= 0)
                return fail("cannot read", "this program");
            in->left -= (uint64_t)got;
            in->stream.next_in = in->packed;
            in->stream.avail_in = (size_t)got;
        }
        lzma_ret done = lzma_code(&in->stream, in->left ? LZMA_RUN : LZMA_FINISH);
        if (done == LZMA_STREAM_END && !in->stream.avail_out)
            return 0;
        if (done != LZMA_OK) {
            errno = done == LZMA_MEM_ERROR ? ENOMEM : EILSEQ;
            return fail("damaged:", "this program");
        }
    }
    return 0;
}

static int write_all(int fd, const uint8_t *data, size_t size) {
    while (size) {
        ssize_t done = write(fd, data, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -1;
        data += done;
        size -= (size_t)done;
    }
    return 0;
}

/* ---- unpacking ---- */

static int unpack_file(struct input *in, int folder, const char *name, uint64_t size, mode_t mode) {
    static uint8_t piece[65536];
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode & 0755);
    if (fd < 0)
        return fail("cannot write", name);
    uint64_t padded = (size + BLOCK - 1) / BLOCK * BLOCK;
    while (padded) {
        size_t now = padded < sizeof piece ? padded : sizeof piece;
        size_t kept = size < now ? size : now;
        if (unpack_bytes(in, piece, now) || (write_all(fd, piece, kept) && fail("cannot write", name))) {
            close(fd);
            return -1;
        }
        size -= kept;
        padded -= now;
    }
    return close(fd) ? fail("cannot write", name) : 0;
}

/* The archive is our own and whole: its names are relative and its folders come before what is in them. */
static int unpack_archive(struct input *in, int folder) {
    char header[BLOCK];
    for (;;) {
        char name[257], link[101];
        if (unpack_bytes(in, (uint8_t *)header, BLOCK))
            return -1;
        if (!header[0])
            return 0;
        int prefixed = header[345] != 0;
        snprintf(name, sizeof name, "%.155s%s%.100s", prefixed ? header + 345 : "", prefixed ? "/" : "", header);
        snprintf(link, sizeof link, "%.100s", header + 157);
        mode_t mode = (mode_t)strtoul(header + 100, NULL, 8);
        uint64_t size = strtoull(header + 124, NULL, 8);
        switch (header[156]) {
        case '5':
            if (mkdirat(folder, name, 0755))
                return fail("cannot make", name);
            break;
        case '2':
            if (symlinkat(link, folder, name))
                return fail("cannot make", name);
            break;
        default:
            if (unpack_file(in, folder, name, size, mode))
                return -1;
        }
    }
}

static int write_path(int fd, uint64_t offset, const char *place, const char *name) {
    char path[WRITTEN_PATH_BYTES] = {0};
    errno = ENAMETOOLONG;
    if (snprintf(path, sizeof path, "%s/%s", place, name) >= (int)sizeof path)
        return fail("cannot use", place);
    return pwrite(fd, path, sizeof path, (off_t)offset) == sizeof path ? 0 : fail("cannot write in", place);
}

/* The kernel takes the loader's path from the file as it is, and the loader knows "$ORIGIN" from /proc alone. */
static int write_paths(int folder, const char *place, const struct trailer *about) {
    int fd = openat(folder, "edgesite", O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return fail("cannot open", "edgesite");
    int done = write_path(fd, about->interpreter, place, "_internal/ld.so");
    if (!done)
        done = write_path(fd, about->libraries, place, "_internal");
    if (close(fd) && !done)
        done = fail("cannot write in", place);
    return done;
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *where) {
    (void)about, (void)kind, (void)where;
    return remove(path);
}

static void remove_tree(const char *path) { nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

static int locked(const char *place, int how) {
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/.lock", place);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && flock(fd, how)) {
        close(fd);
        return -1;
    }
    return fd;
}

static void remove_unused(const char *base, const char *ours) {
    DIR *folder = opendir(base);
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));) {
        char path[PATH_BYTES];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || strcmp(entry->d_name, ours) == 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", base, entry->d_name);
        int lock = locked(path, LOCK_EX | LOCK_NB);
        if (lock >= 0) {
            remove_tree(path);
            close(lock);
        }
    }
    closedir(folder);
}

static int unpack(const struct trailer *about, int self, const char *base, const char *place) {
    char fresh[PATH_BYTES];
    static struct input in;
    memset(&in, 0, sizeof in);
    in.fd = self;
    in.left = about->size;
    if (lseek(self, (off_t)about->start, SEEK_SET) < 0)
        return fail("cannot read", "this program");
    if (lzma_stream_decoder(&in.stream, MEMORY_LIMIT, 0) != LZMA_OK) {
        errno = ENOMEM;
        return fail("cannot unpack into", base);
    }
    snprintf(fresh, sizeof fresh, "%s/new-XXXXXX", base);
    if (!mkdtemp(fresh))
        return fail("cannot make a folder in", base);
    chmod(fresh, 0755);
    int folder = open(fresh, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int lock = folder < 0 ? -1 : openat(folder, ".lock", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    int done = lock < 0 || flock(lock, LOCK_EX) ? fail("cannot write in", fresh) : 0;
    if (!done && !(done = unpack_archive(&in, folder)) && !(done = write_paths(folder, place, about))) {
        syncfs(folder); /* a place that survives a power cut has its files */
        if (rename(fresh, place) && errno != ENOTEMPTY && errno != EEXIST)
            done = fail("cannot make", place);
    }
    lzma_end(&in.stream);
    if (access(fresh, F_OK) == 0)
        remove_tree(fresh); /* it failed, or another process was faster */
    if (folder >= 0)
        close(folder);
    if (lock >= 0)
        close(lock);
    if (!done)
        remove_unused(base, strrchr(place, '/') + 1);
    return done;
}

/* ---- places ---- */

/* Makes a folder with its parents; it must be ours alone, and programs must be allowed to start from it. */
static int usable(char *base) {
    struct stat about;
    struct statvfs system;
    for (char *slash = strchr(base + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(base, 0755);
        *slash = '/';
    }
    if (mkdir(base, 0755) && errno != EEXIST)
        return fail("cannot make", base);
    if (lstat(base, &about) || statvfs(base, &system))
        return fail("cannot use", base);
    errno = EPERM;
    if (!S_ISDIR(about.st_mode) || about.st_uid != geteuid() || (about.st_mode & 022))
        return fail("not a folder of our own:", base);
    errno = EACCES;
    if (system.f_flag & ST_NOEXEC)
        return fail("programs may not be started from", base);
    return 0;
}

/* Where there is no /proc the program finds itself by its first argument; a link of that name lies beside it. */
static void name_program(char **argv, const char *place) {
    static char named[PATH_BYTES];
    char link[16];
    if (readlink("/proc/self/exe", link, sizeof link) > 0)
        return;
    const char *slash = argv[0] ? strrchr(argv[0], '/') : NULL;
    snprintf(named, sizeof named, "%s/%s", place, slash ? slash + 1 : argv[0] ? argv[0] : "edgesite");
    if (access(named, X_OK))
        snprintf(named, sizeof named, "%s/edgesite", place);
    argv[0] = named;
}

static int start(const struct trailer *about, int self, char *base, char **argv) {
    char place[PATH_BYTES], program[PATH_BYTES + 16];
    errno = ENAMETOOLONG;
    if (strlen(base) >= BASE_BYTES)
        return fail("cannot use", base);
    if (usable(base))
        return -1;
    snprintf(place, sizeof place, "%s/%.32s", base, about->build);
    snprintf(program, sizeof program, "%s/edgesite", place);
    for (int tries = 0; tries < 3; tries++) {
        int lock = locked(place, LOCK_SH);
        if (lock >= 0 && access(program, X_OK) == 0) { /* and not removed between the two */
            fcntl(lock, F_SETFD, 0);                   /* kept for as long as the program runs */
            name_program(argv, place);
            execv(program, argv);
            close(lock);
            return fail("cannot start", program);
        }
        if (lock >= 0)
            close(lock);
        if (unpack(about, self, base, place))
            return -1;
    }
    return -1;
}

static int try_in(const struct trailer *about, int self, const char *folder, int shared, char **argv) {
    char base[PATH_BYTES];
    if (!folder || folder[0] != '/')
        return -1;
    if (shared)
        snprintf(base, sizeof base, "%s/edgesite-%u", folder, (unsigned)geteuid());
    else
        snprintf(base, sizeof base, "%s", folder);
    return start(about, self, base, argv);
}

static void try_all(const struct trailer *about, int self, char **argv) {
    char home[PATH_BYTES];
    const char *wanted = getenv("EDGESITE_UNPACK_DIR");
    if (wanted && *wanted) {
        errno = EINVAL;
        fail("not an absolute path:", wanted);
        try_in(about, self, wanted, 0, argv);
        return;
    }
    if (geteuid() == 0)
        try_in(about, self, "/var/cache/edgesite", 0, argv);
    else if (getenv("HOME")) {
        snprintf(home, sizeof home, "%s/.cache/edgesite", getenv("HOME"));
        try_in(about, self, home, 0, argv);
    }
    try_in(about, self, getenv("TMPDIR"), 1, argv);
    try_in(about, self, "/tmp", 1, argv);
    try_in(about, self, "/run", 1, argv);
    try_in(about, self, "/dev/shm", 1, argv);
}

int main(int argc, char **argv) {
    struct trailer about;
    (void)argc;
    /* /proc may be missing where this program is of most use. */
    int self = open((const char *)getauxval(AT_EXECFN), O_RDONLY | O_CLOEXEC);
    if (self < 0)
        self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    off_t end = self < 0 ? -1 : lseek(self, -(off_t)sizeof about, SEEK_END);
    if (end < 0 || read(self, &about, sizeof about) != sizeof about || memcmp(about.magic, MAGIC, sizeof about.magic)) {
        fprintf(stderr, "edgesite: this program's file cannot be read, or is damaged\n");
        return 1;
    }
    try_all(&about, self, argv);
    fprintf(stderr, "edgesite: no folder to unpack into (set EDGESITE_UNPACK_DIR): %s\n", problem);
    return 1;
}
