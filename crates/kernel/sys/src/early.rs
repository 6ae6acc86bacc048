//! Before the C library starts: the quick way to an executable that can't be overwritten (x86-64; elsewhere there's only
//! the ordinary way, `corten-container`'s `protect.rs`, which also says what this is about).
//!
//! A runtime that meets containers has to execute itself a second time, from a read-only clone of its mount. Done in `main`
//! that starts the C library and Rust twice, of which glibc asking the processor what it can do (`cpuid`, each of
//! which is a trip to the hypervisor on a virtual machine) alone takes a third of a millisecond. So a program linked with
//! `-e corten_start` begins here: if one of its arguments is `run`, `exec` or `create`, and its executable isn't on a
//! read-only mount yet, it executes the clone at once.
//!
//! It is assembler because nothing that a compiler may rely on is there yet: no relocated tables, no thread-local storage,
//! no `memcpy`. Whatever goes wrong, it goes on to the C library's `_start` as if nothing had happened; the ordinary way then
//! does it with all its errors told.

const OPEN_TREE_CLONE: i32 = 1;
const MOUNT_ATTR_RDONLY: i32 = 1;
/// Where f_flags is in `struct statfs` (libc hides it).
const F_FLAGS: usize = 80;

// Registers: r12 argc, r13 argv, r14 what the kernel or the loader gave in rdx for _start, rbp the clone's descriptor.
// Comparing four bytes of an argument reads at most three past its end: behind the last argument come the environment
// and the name of the program.
core::arch::global_asm!(
    ".pushsection .text.corten_start, \"ax\", @progbits",
    ".globl corten_start",
    ".type corten_start, @function",
    "corten_start:",
    "    mov r12, [rsp]",
    "    lea r13, [rsp + 8]",
    "    mov r14, rdx",
    // Is there an argument run, exec or create?
    "    lea rbx, [r13 + 8]",
    ".Lnext:",
    "    mov rax, [rbx]",
    "    test rax, rax",
    "    jz .Lgo_on",
    "    add rbx, 8",
    "    cmp dword ptr [rax], 0x006e7572", // "run\0"
    "    je .Lmeets_containers",
    "    cmp dword ptr [rax], 0x63657865", // "exec"
    "    jne .Lcreate",
    "    cmp byte ptr [rax + 4], 0",
    "    je .Lmeets_containers",
    ".Lcreate:",
    "    cmp dword ptr [rax], 0x61657263", // "crea"
    "    jne .Lnext",
    "    cmp dword ptr [rax + 3], 0x00657461", // "ate\0"
    "    jne .Lnext",
    // statfs("/proc/self/exe"), whose f_flags say whether the mount is read-only.
    ".Lmeets_containers:",
    "    sub rsp, 128",
    "    mov eax, {statfs}",
    "    lea rdi, [rip + .Lexe]",
    "    mov rsi, rsp",
    "    syscall",
    "    mov rcx, [rsp + {f_flags}]",
    "    add rsp, 128",
    "    test rax, rax",
    "    jnz .Lgo_on",
    "    test cl, {read_only}",
    "    jnz .Lgo_on",
    // open_tree(AT_FDCWD, "/proc/self/exe", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
    "    mov eax, {open_tree}",
    "    mov edi, {at_fdcwd}",
    "    lea rsi, [rip + .Lexe]",
    "    mov edx, {clone}",
    "    syscall",
    "    test rax, rax",
    "    js .Lgo_on",
    "    mov rbp, rax",
    // mount_setattr(clone, "", AT_EMPTY_PATH, {attr_set: MOUNT_ATTR_RDONLY}, 32)
    "    push 0",
    "    push 0",
    "    push 0",
    "    push {mount_rdonly}",
    "    mov eax, {mount_setattr}",
    "    mov rdi, rbp",
    "    lea rsi, [rip + .Lempty]",
    "    mov edx, {empty_path}",
    "    mov r10, rsp",
    "    mov r8d, 32",
    "    syscall",
    "    add rsp, 32",
    "    test rax, rax",
    "    jnz .Lfailed",
    // execveat(clone, "", argv, envp, AT_EMPTY_PATH): returns only if it fails.
    "    mov eax, {execveat}",
    "    mov rdi, rbp",
    "    lea rsi, [rip + .Lempty]",
    "    mov rdx, r13",
    "    lea r10, [r13 + 8 * r12 + 8]",
    "    mov r8d, {empty_path}",
    "    syscall",
    ".Lfailed:",
    "    mov eax, {close}",
    "    mov rdi, rbp",
    "    syscall",
    ".Lgo_on:",
    "    mov rdx, r14",
    "    jmp _start",
    ".Lexe:",
    "    .ascii \"/proc/self/exe\"",
    ".Lempty:",
    "    .byte 0",
    ".size corten_start, . - corten_start",
    ".popsection",
    statfs = const libc::SYS_statfs,
    f_flags = const F_FLAGS,
    read_only = const libc::ST_RDONLY,
    open_tree = const libc::SYS_open_tree,
    at_fdcwd = const libc::AT_FDCWD,
    clone = const OPEN_TREE_CLONE | libc::O_CLOEXEC,
    mount_rdonly = const MOUNT_ATTR_RDONLY,
    mount_setattr = const libc::SYS_mount_setattr,
    empty_path = const libc::AT_EMPTY_PATH,
    execveat = const libc::SYS_execveat,
    close = const libc::SYS_close,
);
