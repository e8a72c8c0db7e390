// TokenConstraint: which tokens a sequence may draw next, as a grammar sees it.
//
// The mask of the next token is computed on another thread after each Accept(), while steps of
// other sequences run; a sequence whose mask is not there yet is left out of a step. Used by the
// engine's thread, one at a time.
#ifndef DOVETAIL_COORDINATOR_TOKEN_CONSTRAINT_H_
#define DOVETAIL_COORDINATOR_TOKEN_CONSTRAINT_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace dovetail::coordinator {

class TokenConstraint {
 public:
  // What may come next. `mask` (sampling_params.h) is empty where everything is allowed.
  struct Next {
    std::vector<uint32_t> mask;
    bool finished = false;  // nothing may follow any more
    absl::Status status;    // the token that was accepted last did not fit
  };
  virtual ~TokenConstraint() = default;

  // `token` was drawn. Does not wait.
  virtual void Accept(int32_t token) = 0;
  // True as soon as next() is of the last token that was accepted; waits for it for a while.
  virtual bool WaitReady(absl::Duration at_most) = 0;
  // Valid until Accept().
  virtual const Next& next() const = 0;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_TOKEN_CONSTRAINT_H_
