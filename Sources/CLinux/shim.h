#pragma once
#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

// The C library shows memfd_create(2) and seals with its extensions alone; the numbers are the
// kernel's (linux/memfd.h, linux/fcntl.h).

static inline int lineup_memfd_create(const char *name) {
    const unsigned closes_on_exec = 1, allows_sealing = 2;
    return (int)syscall(SYS_memfd_create, name, closes_on_exec | allows_sealing);
}

static const int lineup_size_seals = 2 | 4;  // F_SEAL_SHRINK, F_SEAL_GROW

static inline int lineup_memfd_seal_size(int descriptor) {
    return fcntl(descriptor, 1024 + 9 /* F_ADD_SEALS */, lineup_size_seals);
}

// Of ordinary pages (huge ones can be taken away under a reader) and of a size that stays.
static inline int lineup_memfd_is_sound(int descriptor) {
    const int seals = fcntl(descriptor, 1024 + 10 /* F_GET_SEALS */);
    struct statfs status;
    return seals >= 0 && (seals & lineup_size_seals) == lineup_size_seals &&
           fstatfs(descriptor, &status) == 0 && status.f_type == 0x01021994 /* TMPFS_MAGIC */;
}

// Takes the calling thread into the network of a process of which /proc/PID/ns/net is open.
static inline int lineup_enter_network(int descriptor) {
    return (int)syscall(SYS_setns, descriptor, 0x40000000 /* CLONE_NEWNET, linux/sched.h */);
}

// Since glibc 2.34, shown with the extensions alone: the child closes this descriptor and all above.
int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t *actions, int from);
