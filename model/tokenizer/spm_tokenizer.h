// SentencePiece BPE ("llama"): merges by score, spaces as U+2581, bytes for what has no token.
#ifndef DOVETAIL_MODEL_TOKENIZER_SPM_TOKENIZER_H_
#define DOVETAIL_MODEL_TOKENIZER_SPM_TOKENIZER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/vocab_data.h"

namespace dovetail::model {

// `vocab` has passed CheckVocabData(). InvalidArgument: no scores, a malformed byte token.
absl::StatusOr<std::unique_ptr<Tokenizer>> CreateSpmTokenizer(VocabData vocab);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_TOKENIZER_SPM_TOKENIZER_H_
