// FairQueue: the sequences that wait, and whose turn it is.
//
// First comes the priority (the lower number first). Whoever waits for long moves up a class per
// `aging`, at most to the most urgent class that waits, so that nobody starves below others. Within
// a class those go first that ran before (preempted ones), then the tenant that was served least,
// then the oldest. A tenant's service is what was computed for it, in tokens; a generated token
// counts twice, for it has a step of its own. A tenant that comes back after a pause does not find
// credit for it: it starts at the service of the least served one that is there (virtual token
// counters, as in "Fairness in Serving Large Language Models", 2024).
//
// Time is passed in. Not thread-safe: owned by the scheduler.
#ifndef DOVETAIL_COORDINATOR_FAIR_QUEUE_H_
#define DOVETAIL_COORDINATOR_FAIR_QUEUE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "coordinator/sequence.h"

namespace dovetail::coordinator {

struct Tenant {
  double service = 0;     // tokens
  int num_sequences = 0;  // waiting or running
};

class FairQueue {
 public:
  static constexpr double kGeneratedTokenWeight = 2;

  explicit FairQueue(absl::Duration aging) : aging_(aging) {}

  // A new sequence: its tenant counts it until Leave().
  void Enter(Sequence* sequence);
  void Leave(Sequence* sequence);

  // Puts an entered sequence in, and takes it out.
  void Push(Sequence* sequence) { waiting_.push_back(sequence); }
  void Remove(Sequence* sequence);
  // The one whose turn it is among those that may go; nullptr if there is none. `may_go` is asked
  // only about sequences that would be next.
  Sequence* Next(absl::Time now, absl::FunctionRef<bool(const Sequence&)> may_go) const;

  const std::vector<Sequence*>& waiting() const { return waiting_; }  // in no order
  int num_tenants() const { return static_cast<int>(tenants_.size()); }

 private:
  double LeastService() const;
  void ForgetTenants();

  const absl::Duration aging_;
  std::vector<Sequence*> waiting_;
  // By name; also those that are gone while they are ahead of the others.
  absl::flat_hash_map<std::string, std::unique_ptr<Tenant>> tenants_;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_FAIR_QUEUE_H_
