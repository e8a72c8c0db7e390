// ChooseExperts: which experts a token uses, and with what weights. A pure function of one row.
#ifndef DOVETAIL_WORKER_CPU_ROUTER_H_
#define DOVETAIL_WORKER_CPU_ROUTER_H_

#include <cstdint>

#include "kernels/kernel_table.h"
#include "model/model_config.h"

namespace dovetail::worker {

// Scores come from `logits` [count], which they replace. Experts are chosen by score plus
// `choice_bias` [count] (null: none), from the best groups where there are groups, best first and
// the lower number first among equals; slot i gets experts[i] and weights[i], config.num_used of
// them, no expert twice. Logits that are not numbers give some valid experts.
void ChooseExperts(const kernels::KernelTable& kernels, const model::ExpertConfig& config,
                   const float* choice_bias, float* logits, int32_t* experts, float* weights);

}  // namespace dovetail::worker

#endif  // DOVETAIL_WORKER_CPU_ROUTER_H_
