// MetadataReader: reads one family's keys and gathers everything that is wrong with them.
//
// A getter returns a harmless value where it notes a problem, so that reading goes on to the end
// and all problems come in one message. Keys are given without the architecture ("block_count").
// Used by one loading function; borrows the file.
#ifndef DOVETAIL_MODEL_ARCH_METADATA_READER_H_
#define DOVETAIL_MODEL_ARCH_METADATA_READER_H_

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "model/gguf/gguf_file.h"

namespace dovetail::model {

class MetadataReader {
 public:
  MetadataReader(const GgufFile& file, absl::string_view architecture)
      : file_(file), architecture_(architecture) {}

  // An integer in [1, max]. Without `otherwise` the key must be there. Some keys may be arrays with
  // one value per layer; they are accepted while all values are equal.
  int32_t Dimension(absl::string_view key, int32_t max, std::optional<int32_t> otherwise = {});

  // The same for counts, which may be 0.
  int32_t Count(absl::string_view key, int32_t max, std::optional<int32_t> otherwise = {});

  // A finite number in [min, max].
  double Number(absl::string_view key, double min, double max,
                std::optional<double> otherwise = {});

  std::string Text(absl::string_view key, absl::string_view otherwise);
  bool Flag(absl::string_view key, bool otherwise);

  bool Has(absl::string_view key) const { return file_.Find(FullKey(key)) != nullptr; }
  // Whether a getter has been asked for it.
  bool WasRead(absl::string_view key) const { return read_.count(std::string(key)) > 0; }
  std::string FullKey(absl::string_view key) const;

  // "llama.KEY: WHAT".
  void AddProblem(absl::string_view key, absl::string_view what);
  void AddProblem(std::string problem) { problems_.push_back(std::move(problem)); }
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  int32_t Integer(absl::string_view key, int32_t min, int32_t max,
                  std::optional<int32_t> otherwise);
  const GgufValue* Find(absl::string_view key);
  std::optional<double> UniformNumber(absl::string_view key, const GgufValue& value);

  const GgufFile& file_;
  std::string architecture_;
  std::set<std::string> read_;
  std::vector<std::string> problems_;
};

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_ARCH_METADATA_READER_H_
