/* Answers the CPUID instruction itself, without the instruction sets that a program is not to find.
 *
 * Loaded before every program of a command (see hiding.py). Linux lets CPUID fault in a process that asks for it, where the
 * processor can (cpuid_fault in /proc/cpuinfo); the handler below then runs the real instruction and clears bits of what it says.
 * Nothing else is slower: libraries ask once, when they choose their kernels. Handlers that a program installs for SIGSEGV still
 * see the faults that are theirs.
 *
 * HIDE_AVX512: without AVX-512 either, as Haswell. Without it only what computes products of 8-bit integers in 32 bits, and what
 * came later, is hidden, as on Skylake servers.
 */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef ARCH_SET_CPUID
#define ARCH_SET_CPUID 0x1012
#endif
#define BIT(n) (1u << (n))

typedef int (*sigaction_t)(int, const struct sigaction *, struct sigaction *);

static struct sigaction theirs; /* what the program wants to be done about SIGSEGV */

static sigaction_t real_sigaction(void) {
    static sigaction_t found;
    if (!found) found = (sigaction_t)dlsym(RTLD_NEXT, "sigaction");
    return found;
}

static void answer(greg_t *registers) {
    unsigned a, b, c, d, leaf = (unsigned)registers[REG_RAX], part = (unsigned)registers[REG_RCX];
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
    __cpuid_count(leaf, part, a, b, c, d);
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
    if (leaf == 7 && part == 0) {
        c &= ~BIT(11);                                  /* AVX512_VNNI */
        d &= ~(BIT(22) | BIT(23) | BIT(24) | BIT(25));  /* AMX_BF16, AVX512_FP16, AMX_TILE, AMX_INT8 */
#ifdef HIDE_AVX512
        b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31)); /* F, DQ, IFMA, PF, ER, CD, BW, VL */
        c &= ~(BIT(1) | BIT(6) | BIT(12) | BIT(14));    /* VBMI, VBMI2, BITALG, VPOPCNTDQ */
        d &= ~(BIT(2) | BIT(3) | BIT(8));               /* 4VNNIW, 4FMAPS, VP2INTERSECT */
#endif
    }
    if (leaf == 7 && part == 1) {
        a &= ~(BIT(4) | BIT(5) | BIT(21));              /* AVX_VNNI, AVX512_BF16, AMX_FP16 */
        d &= ~(BIT(4) | BIT(5) | BIT(8) | BIT(10) | BIT(19)); /* AVX_VNNI_INT8, AVX_NE_CONVERT, AMX_COMPLEX, AVX_VNNI_INT16, AVX10 */
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

static void on_fault(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    /* An access to memory that is not there has a code of its own: only then may the instruction not be read. */
    if (info->si_code == SI_KERNEL) {
        const unsigned char *at = (const unsigned char *)registers[REG_RIP];
        if (at[0] == 0x0f && at[1] == 0xa2) {
            answer(registers);
            return;
        }
    }
    if (theirs.sa_flags & SA_SIGINFO) {
        theirs.sa_sigaction(number, info, context);
    } else if (theirs.sa_handler != SIG_DFL && theirs.sa_handler != SIG_IGN) {
        theirs.sa_handler(number);
    } else {
        struct sigaction none;
        memset(&none, 0, sizeof none);
        real_sigaction()(SIGSEGV, &none, NULL); /* the instruction faults again, and ends the program */
        if (info->si_code <= 0) raise(SIGSEGV); /* unless somebody sent the signal */
    }
}

int sigaction(int number, const struct sigaction *wanted, struct sigaction *before) {
    if (number != SIGSEGV) return real_sigaction()(number, wanted, before);
    struct sigaction old = theirs;
    if (wanted) theirs = *wanted;
    if (before) *before = old;
    return 0;
}

void (*signal(int number, void (*handler)(int)))(int) {
    struct sigaction wanted, before;
    memset(&wanted, 0, sizeof wanted);
    wanted.sa_handler = handler;
    wanted.sa_flags = SA_RESTART;
    if (sigaction(number, &wanted, &before) != 0) return SIG_ERR;
    return before.sa_handler;
}

/* Not in a program of an emulator, which has a processor of its own. */
static int finds_vnni(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & BIT(11));
}

__attribute__((constructor)) static void begin(void) {
    struct sigaction ours;
    memset(&ours, 0, sizeof ours);
    ours.sa_sigaction = on_fault;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    real_sigaction()(SIGSEGV, &ours, NULL);
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) != 0 && finds_vnni()) {
        static const char message[] = "hide.c: this processor cannot make CPUID fault; nothing is hidden\n";
        if (write(2, message, sizeof message - 1) < 0) _exit(70);
        _exit(70);
    }
}
