// CpuPause: what a loop does between two looks at memory that another processor is to write.
#ifndef DOVETAIL_BASE_CPU_PAUSE_H_
#define DOVETAIL_BASE_CPU_PAUSE_H_

namespace dovetail {

inline void CpuPause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace dovetail

#endif  // DOVETAIL_BASE_CPU_PAUSE_H_
