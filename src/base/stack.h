// How much of the calling thread's stack is left, for recursion whose depth input decides.
#pragma once

#include <cstddef>
#include <cstdint>

namespace snug {

// The lowest address that the calling thread's stack may reach with `room` bytes to spare; 0 where
// the system does not say.
uintptr_t StackFloor(size_t room);

inline uintptr_t StackPointer() { return reinterpret_cast<uintptr_t>(__builtin_frame_address(0)); }

}  // namespace snug
