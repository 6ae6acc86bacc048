# run NAME ARGUMENT...: a test binary, within a limit so that the others have their turn.
run() {
  name=$1; shift
  echo "@@ begin $name" | tee /dev/stderr
  timeout -k 10 1500 "/job/tests/$name" "$@" >/run/last & pid=$!
  # As it comes, for the case that the guest never gets to the end.
  tail -n +1 -f --pid=$pid /run/last
  wait $pid; code=$?
  failed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' /run/last)
  if [ "$(echo "$failed" | wc -l)" -le 5 ]; then
    for test in $failed; do
      echo "again, alone: $test"
      timeout -k 10 300 "/job/tests/$name" --exact "$test" && echo "@@ passed alone $test"
    done
  fi
  (echo; echo "@@ end $name $code") | tee /dev/stderr
}
