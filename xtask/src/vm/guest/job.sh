#!/bin/bash
# Runs the job disk's script under either init: its standard output, standard error and exit code go to the host through
# three virtio ports, then the guest ends.
echo "vm-job: up $(cut -d' ' -f1 /proc/uptime)" >/dev/kmsg
for dir in /sys/class/virtio-ports/*; do
  case $(cat "$dir/name") in
    vm.out) out=/dev/${dir##*/} ;;
    vm.err) err=/dev/${dir##*/} ;;
    vm.code) code=/dev/${dir##*/} ;;
  esac
done
echo '@@ up' >"$out"
mkfifo /run/vm-out /run/vm-err
cat /run/vm-out >"$out" & c1=$!
cat /run/vm-err >"$err" & c2=$!
bash /job/run </dev/null >/run/vm-out 2>/run/vm-err
rc=$?
# What a test left behind may hold the pipes open: a moment for the rest, no more.
for _ in {1..40}; do kill -0 $c1 $c2 2>/dev/null || break; sleep 0.05; done
echo "vm-job: end $(cut -d' ' -f1 /proc/uptime) code $rc" >/dev/kmsg
sync
echo "$rc" >"$code"
busybox poweroff -f
