// make-tiny-llama PATH [--type Q4_K] [--layers N] [--hidden N] [--heads N] [--kv-heads N] [--ffn N]
//                 [--vocab N] [--context N] [--seed N] [--tied] [--no-vocab]
// Writes the model of tests/testing/tiny_llama.h, for tests that are not written in C++.
#include <cstdio>
#include <map>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "base/weight_type.h"
#include "tests/testing/tiny_llama.h"

namespace {

bool ParseType(absl::string_view name, dovetail::WeightType* type) {
  for (dovetail::WeightType t : dovetail::SupportedWeightTypes()) {
    if (dovetail::InfoOf(t).name != name) continue;
    *type = t;
    return true;
  }
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  dovetail::testing::TinyLlamaOptions options;
  const std::map<std::string, int*> numbers = {
      {"--layers", &options.layers},     {"--hidden", &options.hidden}, {"--heads", &options.heads},
      {"--kv-heads", &options.kv_heads}, {"--ffn", &options.ffn},       {"--vocab", &options.vocab},
      {"--context", &options.context}};
  bool ok = argc >= 2 && argv[1][0] != '-';
  for (int i = 2; ok && i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--tied") {
      options.tied = true;
    } else if (flag == "--no-vocab") {
      options.tokenizer = false;
    } else if (++i == argc) {
      ok = false;
    } else if (flag == "--type") {
      ok = ParseType(argv[i], &options.type);
    } else if (flag == "--seed") {
      ok = absl::SimpleAtoi(argv[i], &options.seed);
    } else {
      const auto it = numbers.find(flag);
      ok = it != numbers.end() && absl::SimpleAtoi(argv[i], it->second);
    }
  }
  if (!ok) {
    std::fprintf(stderr,
                 "usage: make-tiny-llama PATH [--type F32] [--layers N] [--hidden N] ...\n");
    return 2;
  }
  dovetail::testing::WriteTinyLlama(argv[1], options);
  return 0;
}
