#!/bin/sh
# PID 1 of a guest without systemd: what systemd would have mounted, then the job.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8
m() { mkdir -p "$4"; mount -t "$1" -o "$2" "$3" "$4"; }
m devpts gid=5,mode=620,ptmxmode=666 devpts /dev/pts
m tmpfs mode=1777 shm /dev/shm
m mqueue rw mqueue /dev/mqueue
m cgroup2 nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
m securityfs rw securityfs /sys/kernel/security
m bpf mode=700 bpf /sys/fs/bpf
if [ -d /sys/fs/selinux ]; then
  m selinuxfs rw selinuxfs /sys/fs/selinux
  # All of it in one write.
  dd if=/etc/vm/policy of=/sys/fs/selinux/load bs=1M status=none
fi
mkdir -p /dev/net
mknod /dev/net/tun c 10 200
mknod /dev/fuse c 10 229
mknod /dev/loop-control c 10 237
ln -sf /proc/self/fd /dev/fd
ip link set lo up
hostname vmtest
mount --make-rshared /
# The root of the tree is to have no processes of its own, as under any service manager.
mkdir /sys/fs/cgroup/init
echo $$ >/sys/fs/cgroup/init/cgroup.procs
exec /sbin/vm-job
