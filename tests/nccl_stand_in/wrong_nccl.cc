// A library that says it is NCCL of version WRONG_NCCL_VERSION, and has nothing else of it.
extern "C" int ncclGetVersion(int* version) {
  *version = WRONG_NCCL_VERSION;
  return 0;
}
