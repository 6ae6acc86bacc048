#!/bin/busybox sh
# First program of a guest: loads what the root disk needs, mounts it, takes the job along, hands over.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
for module in /modules/*.ko; do $b insmod "$module"; done
$b mount -t ext4 -o noatime /dev/vda /root || { echo "no root disk"; $b poweroff -f; }
$b mount -t ext4 -o ro /dev/vdb /root/job || { echo "no job disk"; $b poweroff -f; }
$b mount -t tmpfs -o mode=755 run /root/run
for dir in proc sys dev; do $b mount --move /$dir /root/$dir; done
exec $b switch_root /root "$($b cat /init-of-this-guest)"
