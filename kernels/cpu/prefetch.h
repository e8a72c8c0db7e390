// What this processor's own prefetchers are good at.
//
// A constant of the process, set before main; instruction-set units read it.
#ifndef DOVETAIL_KERNELS_CPU_PREFETCH_H_
#define DOVETAIL_KERNELS_CPU_PREFETCH_H_

namespace dovetail::kernels {

// Panels whose bytes are read in the order of their addresses come faster when nothing asks for
// them ahead: AMD's processors (measured on Zen 4: by 1.2 to 1.5; docs/benchmarks.md).
extern const bool processor_follows_one_stream;

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_CPU_PREFETCH_H_
