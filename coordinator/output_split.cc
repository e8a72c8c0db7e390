#include "coordinator/output_split.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace dovetail::coordinator {

absl::StatusOr<RowsOutput> OutputSplit::Take(const ScheduledRows& rows) {
  transport::SequenceOutput output;
  if (sequences_ < output_.sequences.size() &&
      output_.sequences[sequences_].sequence_id == rows.sequence->id) {
    output = output_.sequences[sequences_++];
  }
  const size_t num_logits = static_cast<size_t>(output.num_logit_rows) * vocab_size_;
  const size_t num_hidden = static_cast<size_t>(output.num_hidden_rows) * hidden_size_;
  const size_t num_logprobs =
      static_cast<size_t>(output.num_logprob_rows) * (1 + output.num_top_logprobs);
  if (!Answers(rows, output) || logits_ + num_logits > output_.logits.size() ||
      hidden_ + num_hidden > output_.hidden.size() ||
      logprobs_ + num_logprobs > output_.logprobs.size()) {
    return absl::InternalError(absl::StrCat("step ", output_.header.step,
                                            " came back without what sequence ", rows.sequence->id,
                                            " asked for"));
  }
  RowsOutput result;
  result.token = output.token;
  result.logits = absl::MakeConstSpan(output_.logits).subspan(logits_, num_logits);
  result.hidden = absl::MakeConstSpan(output_.hidden).subspan(hidden_, num_hidden);
  result.logprobs = absl::MakeConstSpan(output_.logprobs).subspan(logprobs_, num_logprobs);
  logits_ += num_logits;
  hidden_ += num_hidden;
  logprobs_ += num_logprobs;
  return result;
}

bool OutputSplit::Answers(const ScheduledRows& rows,
                          const transport::SequenceOutput& output) const {
  const Sequence& sequence = *rows.sequence;
  const bool as_logprobs = sequence.num_top_logprobs >= 0;
  const int hidden_rows = sequence.wants_hidden ? rows.num_logit_rows : 0;
  const int logit_rows = as_logprobs || sequence.wants_hidden ? 0 : rows.num_logit_rows;
  const int logprob_rows = as_logprobs ? std::max(rows.num_logit_rows, rows.samples ? 1 : 0) : 0;
  return output.num_logit_rows == logit_rows && output.num_hidden_rows == hidden_rows &&
         output.num_logprob_rows == logprob_rows &&
         (logprob_rows == 0 || output.num_top_logprobs == sequence.num_top_logprobs) &&
         (!rows.samples || (output.token >= 0 && output.token < vocab_size_));
}

}  // namespace dovetail::coordinator
