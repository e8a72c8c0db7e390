#!/bin/sh
# Runs every kernel of the AVX2 unit on an emulated processor that knows nothing newer: an instruction that is not
# AVX2's, there or in code that all units share, is SIGILL. usage: emulated_avx2_test.sh QEMU TESTS_FOLDER
# QEMU may be empty: then the test is skipped.
if [ ! -x "$1" ]; then
  echo "skipped: no qemu-x86_64 (Debian's qemu-user, which tools/install_dependencies installs)"
  exit 77
fi
qemu=$1 folder=$2
emulate() {  # test program, filter
  echo "== $1 $2"
  "$qemu" -cpu Haswell "$folder/$1" --gtest_brief=1 --gtest_filter="$2"
}
export DOVETAIL_EXPECTED_TABLES="scalar avx2"
codebooks='*EveryKernelOnce/IQ1*:*EveryKernelOnce/IQ2*:*EveryKernelOnce/IQ3*'
emulate tables_test '*' || exit 1
emulate matmul_test "*EveryKernelOnce*:QuantizeTest.*-$codebooks" || exit 1
emulate elementwise_test '*' || exit 1
emulate attention_test 'KvAppendTest.*:AttentionTest.EveryShapeOnce' || exit 1
# Of codebooks only that they run: QEMU 7.2 gathers without an index where that is ymm4. A test that finds other numbers
# ends with 1, an illegal instruction with 132.
emulate matmul_test "$codebooks" >/dev/null
status=$?
[ $status -le 1 ] || { echo "codebooks: exit status $status"; exit 1; }
