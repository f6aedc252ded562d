// Where the library's __shared__ variables lie, so that each block finds garbage in them. Private to cuda_on_cpu.cpp.
#pragma once
#include <link.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace cuda_on_cpu {

struct SharedMemory {
    void* begin = nullptr;
    size_t size = 0;

    // As floats: NaN, a large and a small number. A maximum or minimum ignores NaN, but not all three.
    void poison(unsigned round) const {
        constexpr unsigned char patterns[] = {0xff, 0x7f, 0xfe};
        if (begin) memset(begin, patterns[round % 3], size);
    }
};

#ifdef CUDA_ON_CPU_SANITISED
// There, __shared__ variables are plain statics.
inline SharedMemory find_shared_memory() { return {}; }
#else
// The C library sets a library's thread-local memory up when a thread first uses it: this variable is for that.
// All others are __shared__ variables of kernels.
inline thread_local volatile char first_use;

inline int find_in_library(dl_phdr_info* library, size_t, void* found) {
    const auto here = reinterpret_cast<uintptr_t>(&find_in_library);
    bool is_this_one = false;
    size_t size = 0;
    for (int i = 0; i < library->dlpi_phnum; ++i) {
        const ElfW(Phdr)& segment = library->dlpi_phdr[i];
        const uintptr_t begin = library->dlpi_addr + segment.p_vaddr;
        if (segment.p_type == PT_LOAD) is_this_one |= begin <= here && here < begin + segment.p_memsz;
        if (segment.p_type == PT_TLS) size = segment.p_memsz;
    }
    if (is_this_one) *static_cast<SharedMemory*>(found) = {library->dlpi_tls_data, size};
    return is_this_one;
}

// Of the calling thread, which has its own.
inline SharedMemory find_shared_memory() {
    first_use = 1;
    SharedMemory found;
    dl_iterate_phdr(find_in_library, &found);
    return found;
}
#endif

}  // namespace cuda_on_cpu
