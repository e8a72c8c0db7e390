// All that is no product: bytes a second of what is read.
#include <benchmark/benchmark.h>

#include <numeric>
#include <vector>

#include "kernels/kernel_table.h"
#include "tests/bench/kernels_bench.h"

namespace dovetail::kernels {
namespace {

void Quantize(benchmark::State& state, const KernelTable* table) {
  const int64_t rows = 64, cols = 1536;
  std::vector<float> x(rows * cols, 0.5f), d(rows * cols / 32);
  std::vector<int8_t> q(rows * cols);
  std::vector<int16_t> bsum(rows * cols / 16);
  const Activations a = {x.data(),  cols,        q.data(),  cols, d.data(),
                         cols / 32, bsum.data(), cols / 16, cols, 32};
  for (auto _ : state) {
    table->quantize({a}, 0, rows);
    benchmark::DoNotOptimize(q.data());
  }
  state.SetBytesProcessed(state.iterations() * rows * cols * 4);
}

void Gated(benchmark::State& state, void (*kernel)(const GatedArgs&, int64_t, int64_t)) {
  std::vector<float> gate(64 * 1536, 0.5f), y(gate.size());
  for (auto _ : state) {
    kernel({gate.data(), gate.data(), 1536, y.data(), 1536, 1536}, 0, 64);
    benchmark::DoNotOptimize(y.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(gate.size()) * 4);
}

void RmsNorm(benchmark::State& state, const KernelTable* table) {
  std::vector<float> x(64 * 576, 0.5f), w(576, 1.0f), y(x.size());
  for (auto _ : state) {
    table->rms_norm({x.data(), 576, w.data(), y.data(), 576, 576, 1e-5f}, 0, 64);
    benchmark::DoNotOptimize(y.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(x.size()) * 4);
}

void Rope(benchmark::State& state, const KernelTable* table, bool interleaved) {
  std::vector<float> x(64 * 576, 0.5f), angles(64 * 64, 0.7071f);
  for (auto _ : state) {
    table->rope({x.data(), 576, angles.data(), 9, 64, 64, interleaved}, 0, 64);
    benchmark::DoNotOptimize(x.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(x.size()) * 4);
}

void Combine(benchmark::State& state, const KernelTable* table) {
  const int32_t rows = 64, slots = 8, cols = 2048;
  const std::vector<float> y(rows * slots * cols, 0.5f), weights(rows * slots, 0.125f);
  std::vector<float> x(rows * cols);
  std::vector<int32_t> sources(rows * slots);
  std::iota(sources.begin(), sources.end(), 0);
  for (auto _ : state) {
    table->combine({y.data(), cols, sources.data(), weights.data(), slots, x.data(), cols, cols}, 0,
                   rows);
    benchmark::DoNotOptimize(x.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(y.size()) * 4);
}

void Softmax(benchmark::State& state, const KernelTable* table) {
  const int32_t cols = 131072;
  const std::vector<float> x(cols, 0.5f);
  std::vector<float> p(cols);
  for (auto _ : state) benchmark::DoNotOptimize(table->softmax({x.data(), p.data(), cols, 1.0f}));
  state.SetBytesProcessed(state.iterations() * cols * 4);
}

void ArgMax(benchmark::State& state, const KernelTable* table) {
  const std::vector<float> x(131072, 0.5f);
  for (auto _ : state) {
    benchmark::DoNotOptimize(table->argmax(x.data(), static_cast<int64_t>(x.size())));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(x.size()) * 4);
}

void AllFinite(benchmark::State& state, const KernelTable* table) {
  const std::vector<float> x(64 * 1536, 0.5f);
  for (auto _ : state) {
    benchmark::DoNotOptimize(table->all_finite(x.data(), static_cast<int64_t>(x.size())));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(x.size()) * 4);
}

}  // namespace

void RegisterElementwise(const KernelTable* table) {
  const auto add = [&](absl::string_view op, auto run) {
    benchmark::RegisterBenchmark(BenchName(table, op).c_str(),
                                 [=](benchmark::State& s) { run(s, table); });
  };
  add("quantize", Quantize);
  add("silu_mul", [](auto& s, auto* t) { Gated(s, t->silu_mul); });
  add("gelu_mul", [](auto& s, auto* t) { Gated(s, t->gelu_mul); });
  add("swiglu_oai", [](auto& s, auto* t) { Gated(s, t->swiglu_oai); });
  add("rms_norm", RmsNorm);
  add("rope/halves", [](auto& s, auto* t) { Rope(s, t, false); });
  add("rope/interleaved", [](auto& s, auto* t) { Rope(s, t, true); });
  add("combine", Combine);
  add("softmax", Softmax);
  add("argmax", ArgMax);
  add("all_finite", AllFinite);
}

}  // namespace dovetail::kernels
