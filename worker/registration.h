// MakeRegister: the first message of a worker, from what it knows of itself and its machine.
#ifndef DOVETAIL_WORKER_REGISTRATION_H_
#define DOVETAIL_WORKER_REGISTRATION_H_

#include "transport/run_dir.h"
#include "worker/cluster_client.h"

namespace dovetail::v1 {
class Register;
}  // namespace dovetail::v1

namespace dovetail::worker {

inline constexpr int kProtocolVersion = 4;

// Segments that the worker already has in `run_dir` (null: it has none) count as available memory:
// they will be used again, or replaced. `incarnation` is the same for all registrations of one
// process.
v1::Register MakeRegister(const DeviceFacts& facts, const transport::RunDir* run_dir,
                          uint64_t incarnation);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_REGISTRATION_H_
