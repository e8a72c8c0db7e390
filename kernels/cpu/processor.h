// What this processor is good at, where that decides how a kernel goes about it. No bit of a result
// depends on it.
//
// Set before main, and constants of the process but for tests, which try both values;
// instruction-set units read them.
#ifndef DOVETAIL_KERNELS_CPU_PROCESSOR_H_
#define DOVETAIL_KERNELS_CPU_PROCESSOR_H_

namespace dovetail::kernels {

// AMD's processors, measured on Zen 4 (docs/benchmarks.md): a panel that is read in the order of
// its addresses for one to three rows comes 1.2 to 1.7 times as fast when nothing asks for it
// ahead; and for more rows, products from one panel after another, asked for ahead, are up to 2.5
// times as fast as tiles, which read two panels in turn.
extern bool processor_follows_one_stream;

// AMD's processors, measured on Zen 4: halves become floats in pipes that do not multiply, so that
// attention takes keys and values as they are stored for any number of queries. Others have the
// two share their pipes, and widen what many queries read once.
extern bool processor_converts_aside;

// Intel's processors with AMX, measured on Granite Rapids: eight entries of a table come faster by
// one gather than by eight loads. Before them gathers are slow, as microcode makes them against
// leaks (GDS), and AMD's are as well.
extern bool processor_gathers;

// CLFLUSHOPT: flushes of cache lines do not wait for each other.
extern bool processor_flushes_together;

// How an instruction set's products of several rows are made: in tiles (tile.inl.h), from panels
// that pass once (matmul_quant.inl.h), or so where processor_follows_one_stream.
enum class ManyRows { kTiles, kStreams, kByProcessor };

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_CPU_PROCESSOR_H_
