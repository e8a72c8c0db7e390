#include "tests/bench/instruction_rate.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/cpu/tile_config.h"
#include "kernels/kernel_table.h"

namespace dovetail::kernels {
namespace {

// Registers 0 to 11 are sums, 12 and 13 operands. Clobbers name the low halves, which is what a
// compiler without AVX knows; nothing else lives in them here.
#define DT_CLOBBERS                                                                        \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm12", "xmm13", "cc", "memory"
#define DT_TWELVE(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define DT_CLEAR "vpxor %%xmm12, %%xmm12, %%xmm12\n vpxor %%xmm13, %%xmm13, %%xmm13\n"
#define DT_LOOP(NAME, X)                                                       \
  void NAME(int64_t loops) {                                                   \
    alignas(64) static const int32_t kZero[16] = {};                           \
    asm volatile(DT_CLEAR "1:\n" DT_TWELVE(X) "dec %0\n jnz 1b\n vzeroupper\n" \
                 : "+r"(loops)                                                 \
                 : "r"(kZero)                                                  \
                 : DT_CLOBBERS);                                               \
  }

#define DT_SUM(MNEMONIC, R, I) MNEMONIC " %%" R "13, %%" R "12, %%" R #I "\n"
#define DT_UNARY(MNEMONIC, R, I) MNEMONIC " %%" R "12, %%" R #I "\n"

#define DT_X(I) DT_SUM("vpdpbusd", "zmm", I)
DT_LOOP(Vpdpbusd512, DT_X)
#undef DT_X
#define DT_X(I) "vpdpbusd (%1)%{1to16%}, %%zmm12, %%zmm" #I "\n"
DT_LOOP(Vpdpbusd512Broadcast, DT_X)
#undef DT_X
#define DT_X(I) DT_SUM("%{evex%} vpdpbusd", "ymm", I)
DT_LOOP(Vpdpbusd256Evex, DT_X)
#undef DT_X
#define DT_X(I) DT_SUM("%{vex%} vpdpbusd", "ymm", I)
DT_LOOP(Vpdpbusd256Vex, DT_X)
#undef DT_X
#define DT_X(I) DT_SUM("vpdpwssd", "zmm", I)
DT_LOOP(Vpdpwssd512, DT_X)
#undef DT_X
#define DT_X(I) DT_SUM("vpmaddubsw", "zmm", I)
DT_LOOP(Vpmaddubsw512, DT_X)
#undef DT_X
#define DT_X(I) DT_SUM("vpmaddubsw", "ymm", I)
DT_LOOP(Vpmaddubsw256, DT_X)
#undef DT_X
#define DT_X(I) DT_SUM("vpmaddwd", "ymm", I)
DT_LOOP(Vpmaddwd256, DT_X)
#undef DT_X
#define DT_X(I) DT_SUM("vpmulld", "zmm", I)
DT_LOOP(Vpmulld512, DT_X)
#undef DT_X
#define DT_X(I) DT_SUM("vpmulld", "ymm", I)
DT_LOOP(Vpmulld256, DT_X)
#undef DT_X
#define DT_X(I) DT_UNARY("vcvtdq2ps", "zmm", I)
DT_LOOP(Vcvtdq2ps512, DT_X)
#undef DT_X
#define DT_X(I) DT_SUM("vfmadd231ps", "zmm", I)
DT_LOOP(Vfmadd231ps512, DT_X)
#undef DT_X
#define DT_X(I) DT_SUM("vfmadd231ps", "ymm", I)
DT_LOOP(Vfmadd231ps256, DT_X)
#undef DT_X

// What AVX2 takes for a product at the least: the pairs of an instruction are added up in 16 bits,
// and widened after up to eight of them.
#define DT_X(I)                           \
  "vpmaddubsw %%ymm13, %%ymm12, %%ymm" #I \
  "\n"                                    \
  "vpaddw %%ymm12, %%ymm" #I ", %%ymm" #I "\n"
DT_LOOP(AddedProduct256, DT_X)
#undef DT_X

// Whole tiles of AMX, all zero as LDTILECFG leaves them: four sums in turn. Linux has lent them to
// this process when somebody asked for tables.
void Tdpbsud(int64_t loops) {
  TileConfig config = {.palette = 1};
  for (int i = 0; i < 8; ++i) {
    config.rows[i] = 16;
    config.row_bytes[i] = 64;
  }
#define DT_TILES                                                      \
  "tdpbsud %%tmm5, %%tmm4, %%tmm0\n tdpbsud %%tmm5, %%tmm4, %%tmm1\n" \
  "tdpbsud %%tmm5, %%tmm4, %%tmm2\n tdpbsud %%tmm5, %%tmm4, %%tmm3\n"
  asm volatile("ldtilecfg %1\n 1:\n" DT_TILES DT_TILES DT_TILES "dec %0\n jnz 1b\n tilerelease\n"
               : "+r"(loops)
               : "m"(config)
               : "cc", "memory");
#undef DT_TILES
}

constexpr Instruction kInstructions[] = {
    {"tdpbsud", Isa::kAmx, 16 * 16 * 64, Tdpbsud},
    {"vpdpbusd/512", Isa::kAvx512, 64, Vpdpbusd512},
    {"vpdpbusd/512/broadcast", Isa::kAvx512, 64, Vpdpbusd512Broadcast},
    {"vpdpbusd/256/evex", Isa::kAvx512, 32, Vpdpbusd256Evex},
    {"vpdpbusd/256/vex", Isa::kAvxVnni, 32, Vpdpbusd256Vex},
    {"vpdpwssd/512", Isa::kAvx512, 32, Vpdpwssd512},
    {"vpmaddubsw/512", Isa::kAvx512, 64, Vpmaddubsw512},
    {"vpmulld/512", Isa::kAvx512, 16, Vpmulld512},
    {"vcvtdq2ps/512", Isa::kAvx512, 0, Vcvtdq2ps512},
    {"vfmadd231ps/512", Isa::kAvx512, 16, Vfmadd231ps512},
    {"vpmaddubsw/256", Isa::kAvx2, 32, Vpmaddubsw256},
    {"vpmaddwd/256", Isa::kAvx2, 16, Vpmaddwd256},
    {"vpmulld/256", Isa::kAvx2, 8, Vpmulld256},
    {"vfmadd231ps/256", Isa::kAvx2, 8, Vfmadd231ps256},
    {"vpmaddubsw+vpaddw/256", Isa::kAvx2, 32, AddedProduct256},
};

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

constexpr int kTries = 20;
constexpr int64_t kLoops = 20'000;

const Instruction& Named(absl::string_view name) {
  return *std::find_if(std::begin(kInstructions), std::end(kInstructions),
                       [&](const Instruction& i) { return name == i.name; });
}

double Multiplications(absl::string_view name) {
  const Instruction& instruction = Named(name);
  return InstructionRate(instruction) * instruction.multiplications;
}

}  // namespace

absl::Span<const Instruction> Instructions() { return kInstructions; }

bool CanRun(const Instruction& instruction) {
  const std::vector<const KernelTable*> tables = AvailableTables();
  return std::any_of(tables.begin(), tables.end(),
                     [&](const KernelTable* table) { return table->isa == instruction.needs; });
}

double InstructionRate(const Instruction& instruction) {
  double best = 0;
  for (int i = 0; i < kTries; ++i) {
    const double begin = Now();
    instruction.run(kLoops);
    best = std::max(best, static_cast<double>(kLoops * kInstructionsOfLoop) / (Now() - begin));
  }
  return best;
}

double ClockRate() {
  constexpr int kChain = 8;
  constexpr double kCycles = 3;
  double best = 0;
  for (int i = 0; i < kTries; ++i) {
    int64_t loops = kLoops, x = 1;
    const double begin = Now();
    asm volatile(
        "1:\n"
        "imul %1, %1\n imul %1, %1\n imul %1, %1\n imul %1, %1\n"
        "imul %1, %1\n imul %1, %1\n imul %1, %1\n imul %1, %1\n"
        "dec %0\n jnz 1b\n"
        : "+r"(loops), "+r"(x)
        :
        : "cc");
    best = std::max(best, static_cast<double>(kLoops) * kChain * kCycles / (Now() - begin));
  }
  return best;
}

double Int8Peak(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return Multiplications("vpdpbusd/512");
    case Isa::kAvxVnni:
      return Multiplications("vpdpbusd/256/vex");
    case Isa::kAvx2:
      return Multiplications("vpmaddubsw+vpaddw/256");
    case Isa::kAmx:
      return Multiplications("tdpbsud");
    case Isa::kScalar:
      break;
  }
  return 0;
}

double FloatPeak(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
    case Isa::kAmx:
      return Multiplications("vfmadd231ps/512");
    case Isa::kAvxVnni:
    case Isa::kAvx2:
      return Multiplications("vfmadd231ps/256");
    case Isa::kScalar:
      break;
  }
  return 0;
}

}  // namespace dovetail::kernels
