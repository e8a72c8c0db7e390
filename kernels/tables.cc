#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/amx_table.h"
#include "kernels/cpu/isa_tables.h"
#include "kernels/kernel_table.h"
#include "kernels/kv_layout.h"
#include "kernels/quant/format.h"
#include "kernels/ref/ref.h"

namespace dovetail::kernels {
namespace {

struct Feature {
  const char* name;
  bool present;
};

struct CpuidBits {
  unsigned leaf1_ecx = 0;
  unsigned leaf7_edx = 0;
  unsigned leaf7_1_eax = 0;  // subleaf 1
};
CpuidBits ReadCpuid() {
  CpuidBits bits;
  unsigned a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d) != 0) bits.leaf1_ecx = c;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return bits;
  bits.leaf7_edx = d;
  if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) bits.leaf7_1_eax = a;
  return bits;
}

// Linux lends a process the tile registers of AMX when it asks; once does for all its threads.
bool TilesPermitted() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  static const bool permitted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return permitted;
}

// __builtin_cpu_supports asks the operating system too (xgetbv). f16c and avx_vnni have the
// registers of avx2; for those of AMX see TilesPermitted.
std::vector<Feature> Features() {
  __builtin_cpu_init();
  const CpuidBits cpuid = ReadCpuid();
  const bool avx2 = __builtin_cpu_supports("avx2") != 0;
  const auto bit = [](unsigned word, int bit) { return (word >> bit & 1) != 0; };
  return {{"avx2", avx2},
          {"fma", __builtin_cpu_supports("fma") != 0},
          {"f16c", avx2 && bit(cpuid.leaf1_ecx, 29)},
          {"avx_vnni", avx2 && bit(cpuid.leaf7_1_eax, 4)},
          {"avx512f", __builtin_cpu_supports("avx512f") != 0},
          {"avx512bw", __builtin_cpu_supports("avx512bw") != 0},
          {"avx512vl", __builtin_cpu_supports("avx512vl") != 0},
          {"avx512dq", __builtin_cpu_supports("avx512dq") != 0},
          {"avx512vnni", __builtin_cpu_supports("avx512vnni") != 0},
          {"avx512vbmi", __builtin_cpu_supports("avx512vbmi") != 0},
          {"avx512bf16", __builtin_cpu_supports("avx512bf16") != 0},
          {"gfni", __builtin_cpu_supports("gfni") != 0},
          {"amx_bf16", bit(cpuid.leaf7_edx, 22)},
          {"amx_tile", bit(cpuid.leaf7_edx, 24)},
          {"amx_int8", bit(cpuid.leaf7_edx, 25)}};
}

struct IsaEntry {
  Isa isa;
  const char* name;
  const KernelTable* table;  // nullptr where this build lacks it
  std::vector<const char*> needs;
};

// From the plainest to the best.
std::vector<IsaEntry> Entries() {
  const std::vector<const char*> avx2 = {"avx2", "fma", "f16c"};
  const std::vector<const char*> avxvnni = {"avx2", "fma", "f16c", "avx_vnni"};
  const std::vector<const char*> avx512 = {"fma",      "f16c",     "avx512f",   "avx512bw",
                                           "avx512vl", "avx512dq", "avx512vnni"};
  std::vector<const char*> amx = avx512;
  amx.insert(amx.end(), {"amx_tile", "amx_int8", "amx_bf16"});
  static const KernelTable amx_table = OverAvx512(*AmxTable());
  return {{Isa::kScalar, "scalar", &ref::kTable, {}},
          {Isa::kAvx2, "avx2", Avx2Table(), avx2},
          {Isa::kAvxVnni, "avxvnni", AvxVnniTable(), avxvnni},
          {Isa::kAvx512, "avx512", Avx512Table(), avx512},
          {Isa::kAmx, "amx", &amx_table, amx}};
}

// What keeps `entry` from running here, or "".
std::string Obstacle(const IsaEntry& entry) {
  if (entry.table == nullptr) return "this build has no such kernels";
  std::string missing;
  for (const Feature& feature : Features()) {
    for (const char* need : entry.needs) {
      if (absl::string_view(need) == feature.name && !feature.present) {
        absl::StrAppend(&missing, missing.empty() ? "this processor lacks " : ", ", need);
      }
    }
  }
  if (missing.empty() && entry.isa == Isa::kAmx && !TilesPermitted()) {
    return "Linux does not permit this process the tile registers of AMX";
  }
  return missing;
}

}  // namespace

KernelTable OverAvx512(const KernelTable& part) {
  KernelTable table = *Avx512Table();
  table.name = part.name;
  table.isa = part.isa;
  table.matmul = part.matmul;
  return table;
}

int32_t ActivationBlock(WeightType type) {
  const QuantFormat* format = FindQuantFormat(type);
  return format == nullptr ? 0 : format->block;
}

int64_t AttentionScratchFloats(const KvShape& shape) { return AttentionScratchSize(shape); }

int64_t AttentionPartFloats(const KvShape& shape) { return AttentionPartSize(shape); }

const KernelTable* FindTable(Isa isa) {
  for (const IsaEntry& entry : Entries()) {
    if (entry.isa == isa && Obstacle(entry).empty()) return entry.table;
  }
  return nullptr;
}

std::vector<const KernelTable*> AvailableTables() {
  std::vector<const KernelTable*> tables;
  for (const IsaEntry& entry : Entries()) {
    if (Obstacle(entry).empty()) tables.push_back(entry.table);
  }
  return tables;
}

absl::StatusOr<const KernelTable*> SelectTable(absl::string_view dovetail_isa) {
  if (dovetail_isa.empty()) return AvailableTables().back();
  for (const IsaEntry& entry : Entries()) {
    if (dovetail_isa != entry.name) continue;
    const std::string obstacle = Obstacle(entry);
    if (obstacle.empty()) return entry.table;
    return absl::FailedPreconditionError(
        absl::StrCat("DOVETAIL_ISA=", dovetail_isa, ": ", obstacle));
  }
  std::string known;
  for (const IsaEntry& entry : Entries()) absl::StrAppend(&known, entry.name, ", ");
  return absl::InvalidArgumentError(absl::StrCat("DOVETAIL_ISA=", dovetail_isa,
                                                 " is not known; use one of ", known,
                                                 "or leave it unset for the best one"));
}

std::string CpuFeatures() {
  std::string names;
  for (const Feature& feature : Features()) {
    if (feature.present) absl::StrAppend(&names, names.empty() ? "" : " ", feature.name);
  }
  return names;
}

}  // namespace dovetail::kernels
