// dequantize TYPE: reads blocks of a weight type, as a GGUF file stores them, on standard input and
// writes the weights that kernels/quant makes of them, little-endian f32. --types lists the types.
#include <cstdio>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "base/weight_type.h"
#include "kernels/quant/format.h"

namespace {

int Dequantize(const dovetail::WeightTypeInfo& info) {
  const std::string blocks(std::istreambuf_iterator<char>(std::cin), {});
  if (blocks.size() % static_cast<size_t>(info.block_bytes) != 0) {
    std::cerr << "the input is not whole blocks of " << info.block_bytes << " bytes\n";
    return 1;
  }
  const auto count = static_cast<int64_t>(blocks.size()) / info.block_bytes * info.block_elements;
  std::vector<float> weights(static_cast<size_t>(count));
  dovetail::kernels::DequantizeRow(info.type, reinterpret_cast<const uint8_t*>(blocks.data()),
                                   count, weights.data());
  return std::fwrite(weights.data(), sizeof(float), weights.size(), stdout) == weights.size() ? 0
                                                                                              : 1;
}

}  // namespace

int main(int argc, char** argv) {
  for (const dovetail::WeightType type : dovetail::SupportedWeightTypes()) {
    const dovetail::WeightTypeInfo& info = dovetail::InfoOf(type);
    if (argc == 2 && std::string(argv[1]) == "--types") {
      std::cout << info.name << "\n";
    } else if (argc == 2 && argv[1] == info.name) {
      return Dequantize(info);
    }
  }
  if (argc == 2 && std::string(argv[1]) == "--types") return 0;
  std::cerr << "usage: dequantize TYPE < BLOCKS > FLOATS, or dequantize --types\n";
  return 2;
}
