/* Compiles a profile with libseccomp, as a reference. Reads lines from stdin, writes the filter to stdout:
 *   default ACTION | arch TOKEN | rule ACTION NAME COUNT (INDEX OP VALUE VALUE2)...
 * Numbers are decimal. A name that this libseccomp doesn't know is told on stderr. */
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(void)
{
    scmp_filter_ctx ctx = NULL;
    char word[64], name[128];
    uint32_t number;
    while (scanf("%63s", word) == 1) {
        if (!strcmp(word, "default") && scanf("%" SCNu32, &number) == 1) {
            ctx = seccomp_init(number);
        } else if (!strcmp(word, "arch") && scanf("%" SCNu32, &number) == 1) {
            int error = seccomp_arch_add(ctx, number);
            if (error && error != -EEXIST)
                return 2;
        } else if (!strcmp(word, "rule")) {
            struct scmp_arg_cmp args[6] = {0};
            unsigned count, index, op;
            uint64_t a, b;
            if (scanf("%" SCNu32 "%127s%u", &number, name, &count) != 3 || count > 6)
                return 3;
            for (unsigned i = 0; i < count; i++) {
                if (scanf("%u%u%" SCNu64 "%" SCNu64, &index, &op, &a, &b) != 4)
                    return 3;
                args[i] = (struct scmp_arg_cmp){index, op, a, b};
            }
            int call = seccomp_syscall_resolve_name(name);
            if (call == __NR_SCMP_ERROR)
                fprintf(stderr, "%s\n", name);
            else if (seccomp_rule_add_array(ctx, number, call, count, args))
                return 4;
        } else {
            return 1;
        }
    }
    return seccomp_export_bpf(ctx, STDOUT_FILENO) ? 5 : 0;
}
