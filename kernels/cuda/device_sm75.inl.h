// What compute capability 7.5 does where later ones have an instruction: included by both of
// device.h's sides, behind the words that it is made of (MmaRows8, LoadVector, WriteShared).
//
// The same integers: the upper and the lower eight rows of a product one after the other, and
// copies at once.

namespace sm75 {

DT_DEVICE void MmaK16(int32_t (&c)[4], const int32_t (&a)[2], const int32_t (&b)[1]) {
  MmaRows8(c[0], c[1], a[0], b[0]);
  MmaRows8(c[2], c[3], a[1], b[0]);
}
DT_DEVICE void MmaK32(int32_t (&c)[4], const int32_t (&a)[4], const int32_t (&b)[2]) {
  MmaRows8(c[0], c[1], a[0], b[0]);
  MmaRows8(c[2], c[3], a[1], b[0]);
  MmaRows8(c[0], c[1], a[2], b[1]);
  MmaRows8(c[2], c[3], a[3], b[1]);
}

struct alignas(16) Bytes16 {
  uint8_t bytes[16];
};
struct alignas(4) Bytes4 {
  uint8_t bytes[4];
};
// Nothing is left to wait for.
template <typename Shared>
DT_DEVICE void CopyAsync16(Shared& shared, int64_t index, const void* from) {
  WriteShared(shared, index, LoadVector<Bytes16>(static_cast<const uint8_t*>(from)));
}
template <typename Shared>
DT_DEVICE void CopyAsync4(Shared& shared, int64_t index, const void* from) {
  WriteShared(shared, index, LoadVector<Bytes4>(static_cast<const uint8_t*>(from)));
}

}  // namespace sm75
