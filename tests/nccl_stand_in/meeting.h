// Where the two ranks of a communicator meet: a Unix socket of this host's, without a file.
//
// Who makes the id listens from then on, so that the other rank may come first, and learns at once
// that nobody will come when that process is gone. Thread-safe.
#ifndef DOVETAIL_TESTS_NCCL_STAND_IN_MEETING_H_
#define DOVETAIL_TESTS_NCCL_STAND_IN_MEETING_H_

#include "base/posix.h"
#include "transport/nccl_abi.h"

namespace dovetail::nccl_stand_in {

// Whether the id was made: the system may have no more sockets.
bool MakeMeeting(transport::NcclUniqueId* id);
// The socket that listens for the other rank, once; invalid if this process did not make the id.
UniqueFd TakeListener(const transport::NcclUniqueId& id);
// A connection to that socket; invalid if nobody listens.
UniqueFd ConnectTo(const transport::NcclUniqueId& id);

}  // namespace dovetail::nccl_stand_in

#endif  // DOVETAIL_TESTS_NCCL_STAND_IN_MEETING_H_
