"""As much of util-linux' Python binding, which Debian doesn't package, as crun's tests of mounts use."""


class Mount:
    def __init__(self, line):
        left, right = line.rstrip("\n").split(" - ", 1)
        fields = left.split(" ")
        self.target = fields[4]
        self.vfs_options = fields[5]
        self.fs_options = right.split(" ", 2)[2]


class Table:
    """A file in the form of /proc/self/mountinfo."""

    def __init__(self, path):
        with open(path) as file:
            self.mounts = [Mount(line) for line in file if " - " in line]

    def find_target(self, target):
        """The uppermost mount at `target`."""
        return next((mount for mount in reversed(self.mounts) if mount.target == target), None)
