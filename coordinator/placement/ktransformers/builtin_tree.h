// The module tree of a model, as transformers or KTransformers build it, from its shape alone.
// Pure function.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_BUILTIN_TREE_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_BUILTIN_TREE_H_

#include "coordinator/placement/ktransformers/module_tree.h"
#include "coordinator/placement/ktransformers/tree_shape.h"

namespace dovetail::coordinator::ktransformers {

// Classes are compared by their last names (ModuleTree::by_last_names); of experts only the first
// one is there.
ModuleTree BuildTree(const TreeShape& shape);

}  // namespace dovetail::coordinator::ktransformers

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_KTRANSFORMERS_BUILTIN_TREE_H_
