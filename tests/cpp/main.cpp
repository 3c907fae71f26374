// Runs the tests of one program: all of them, or those whose name contains the first argument.

#include <cstdio>
#include <exception>
#include <string>

#include "check.h"

int main(int argc, char** argv) {
    const std::string filter = argc > 1 ? argv[1] : "";
    int run = 0, failed = 0;
    for (const check::Test& test : check::tests()) {
        if (std::string(test.name).find(filter) == std::string::npos) continue;
        ++run;
        try {
            test.body();
            std::printf("ok    %s\n", test.name);
        } catch (const std::exception& error) {
            ++failed;
            std::printf("FAIL  %s\n      %s\n", test.name, error.what());
        }
        std::fflush(stdout);
    }
    std::printf("%d tests, %d failed\n", run, failed);
    // A filter that matches nothing is a mistake, not a success.
    return failed == 0 && run > 0 ? 0 : 1;
}
