// Repeats recorded launches in a program of its own, because a sanitizer has to be there from the program's start.
// Each array gets a block of memory of exactly its size, so that AddressSanitizer sees accesses beyond it.
//
//     replay FILE        the format is cuda_on_cpu.py's `_record`; native byte order
//
// Exits with 0 if all launches went well, 3 if one had a fault, 2 if the file cannot be used.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cuda_on_cpu.h"

namespace {

class Recording {
  public:
    explicit Recording(const char* path) : file_(fopen(path, "rb")) {}
    ~Recording() {
        if (file_) fclose(file_);
    }

    void read(void* to, size_t size) {
        if (file_ && fread(to, 1, size, file_) == size) return;
        fprintf(stderr, "replay: the recording is not readable to its end\n");
        exit(2);
    }

    unsigned number() {
        unsigned value;
        read(&value, sizeof value);
        return value;
    }

    std::string bytes() {
        std::string text(number(), '\0');
        read(&text[0], text.size());
        return text;
    }

  private:
    FILE* file_;
};

using Launcher = int (*)(const char*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned);

std::vector<void*> read_arrays(Recording& recording) {
    std::vector<void*> arrays(recording.number());
    for (void*& array : arrays) {
        uint64_t size;
        recording.read(&size, sizeof size);
        array = malloc(size);
        recording.read(array, size);
    }
    return arrays;
}

void launch_next(Recording& recording) {
    const std::string kernel = recording.bytes();
    unsigned shape[6];
    for (unsigned& size : shape) size = recording.number();
    cuda_on_cpu_set_seed(recording.number());
    std::string parameters = recording.bytes();
    const std::vector<void*> arrays = read_arrays(recording);
    for (unsigned left = recording.number(); left > 0; --left) {
        const unsigned offset = recording.number(), array = recording.number();
        memcpy(&parameters.at(offset), &arrays.at(array), sizeof(void*));
    }
    const auto launch = reinterpret_cast<Launcher>(dlsym(RTLD_DEFAULT, ("launch_" + kernel).c_str()));
    if (!launch) {
        fprintf(stderr, "replay: there is no kernel %s\n", kernel.c_str());
        exit(2);
    }
    if (launch(parameters.data(), shape[0], shape[1], shape[2], shape[3], shape[4], shape[5]) != cuda_on_cpu::ok) {
        fprintf(stderr, "%s: %s\n", kernel.c_str(), cuda_on_cpu_fault());
        exit(3);
    }
    for (void* array : arrays) free(array);
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 2) {
        fprintf(stderr, "usage: replay FILE\n");
        return 2;
    }
    Recording recording(arguments[1]);
    for (unsigned left = recording.number(); left > 0; --left) launch_next(recording);
    return 0;
}
