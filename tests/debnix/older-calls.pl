# Runs a program as on an older Linux: system calls that proot 5.1 does not know
# fail with ENOSYS, and libc turns to those that it does know.
#
#   older-calls.pl PROGRAM [ARGUMENT]...

# renameat2, execveat, statx, clone3, openat2, faccessat2, fchmodat2
my @calls = (316, 322, 332, 435, 437, 439, 452);

# As in linux/filter.h: code, jump if true, jump if false, value.
my ($load, $equal, $return) = (0x20, 0x15, 0x06);
my ($offset_of_call, $offset_of_architecture, $x86_64) = (0, 4, 0xc000003e);
my ($allow, $enosys) = (0x7fff0000, 0x50000 | 38);
my $filter = join '', map { pack 'SCCL', @$_ } (
    [$load, 0, 0, $offset_of_architecture],
    [$equal, 0, @calls + 1, $x86_64],
    [$load, 0, 0, $offset_of_call],
    (map { [$equal, @calls - $_, 0, $calls[$_]] } 0 .. $#calls),
    [$return, 0, 0, $allow],
    [$return, 0, 0, $enosys],
);
my $program = pack 'S x![Q] P', length($filter) / 8, $filter;

my ($prctl, $no_new_privs, $seccomp, $mode_filter) = (157, 38, 22, 2);
syscall($prctl, $no_new_privs, 1, 0, 0, 0) == 0 or die "$0: no_new_privs: $!\n";
syscall($prctl, $seccomp, $mode_filter, $program, 0, 0) == 0 or die "$0: seccomp: $!\n";
exec { $ARGV[0] } @ARGV or die "$0: $ARGV[0]: $!\n";
