// FamilyReader: what a family fills its configuration with; LoadFamily: from a file to a checked
// configuration.
//
// A family's read() function calls the parts that it has and sets what is its own:
//   ReadDecoder   the dimensions and rotary positions that all have
//   ReadLatentAttention, ReadExperts, ReadNextn   for those that have them
// Problems gather in keys(). A key that changes the arithmetic and that no reader has asked for is
// refused afterwards. Used by one loading function.
#ifndef DOVETAIL_MODEL_ARCH_FAMILY_READER_H_
#define DOVETAIL_MODEL_ARCH_FAMILY_READER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/arch/metadata_reader.h"
#include "model/arch/rope.h"
#include "model/gguf/gguf_file.h"
#include "model/model_config.h"

namespace dovetail::model {

struct Family;

class FamilyReader {
 public:
  FamilyReader(const GgufFile& file, ModelConfig* config)
      : file_(file), keys_(file, config->architecture), config_(*config) {}

  ModelConfig& config() { return config_; }
  MetadataReader& keys() { return keys_; }
  bool HasTensor(absl::string_view name) const { return file_.FindTensor(name) != nullptr; }

  void ReadDecoder();
  // Multi-head latent attention. After ReadDecoder.
  void ReadLatentAttention();
  // `usual`: what the family has where the file does not say.
  void ReadExperts(const ExpertConfig& usual);
  // Blocks for multi-token prediction, which block_count counts. After ReadDecoder.
  void ReadNextn();

  // As ReadDecoder found it; the frequencies are computed from it when all is read.
  RopeScaling& rope_scaling() { return rope_scaling_; }
  void set_local_rope_base(double base) { local_rope_base_ = base; }

  // The checks that need more than one key, then the frequencies. Nothing is done after a problem.
  void Finish();

 private:
  void ReadDimensions();
  void ReadSharedExpert(ExpertConfig* experts);
  void ReadGroups(ExpertConfig* experts);
  void RefuseForeignKeys();
  void CheckDimensions();
  void CheckHeads();
  void CheckLatentHeads();
  void FillRope();
  std::vector<double> ReadRopeFreqs();

  const GgufFile& file_;
  MetadataReader keys_;
  ModelConfig& config_;
  double rope_base_ = 10000.0;
  double local_rope_base_ = 0;  // 0: none of their own
  RopeScaling rope_scaling_;
};

// From metadata alone; InvalidArgument lists everything that is wrong with it.
absl::StatusOr<ModelConfig> ReadFamilyConfig(const GgufFile& file, const Family& family);

// InvalidArgument lists everything that is wrong with metadata, or with tensors.
absl::StatusOr<ModelConfig> LoadFamily(const GgufFile& file, const Family& family);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_ARCH_FAMILY_READER_H_
