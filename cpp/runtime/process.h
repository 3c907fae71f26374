// Which process this is. Threads do not survive a fork, and a GPU's driver must not be used after one: what
// was made before it is neither used nor freed in the child.
#pragma once

#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace csm {

inline int current_process() {
#if defined(_WIN32)
    return 0;
#else
    return static_cast<int>(getpid());
#endif
}

}  // namespace csm
