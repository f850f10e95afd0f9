// What the extension does when the process forks.
#pragma once

namespace pyframe {

// Registers the fork handlers, once.
void register_fork_handlers();

}  // namespace pyframe
