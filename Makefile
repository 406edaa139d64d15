# Set-up, build, demo, tests and benchmarks. `make demo` and `make test` need nothing done before.
SHELL := /bin/bash
MODELS := $(or $(SNUG_MODELS),$(HOME)/.cache/snug/models)
GEMMA := $(MODELS)/gemma-3-270m-q4_k_m.gguf
QWEN := $(MODELS)/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf
MODEL ?= gemma
SNUG := build/release/snug

FUZZ_SECONDS ?= 60

.PHONY: help setup build demo test bench asan tsan fuzz neon format tidy clean

help:
	@echo "make demo [MODEL=gemma|qwen|FILE.gguf]  set up, build, and answer inside a budget"
	@echo "make test                               set up, build, and run all tests"
	@echo "make build                              the program, at $(SNUG)"
	@echo "make bench [QUICK=1] [PEER=LLAMA_BENCH] measure beside llama.cpp"
	@echo "make asan | tsan                        the tests under sanitizers"
	@echo "make fuzz [FUZZ_SECONDS=60] [FUZZ=NAME] every fuzz target (or one) for so long"
	@echo "make format | tidy | neon | clean"

setup:
	@scripts/setup.sh

build: setup
	cmake --preset release
	cmake --build --preset release --target snug_cli

demo: build
ifeq ($(MODEL),gemma)
	@python3 scripts/fetch_model.py gemma
	$(SNUG) run $(GEMMA) --memory 400MiB -c 1024 -n 64 --temp 0 -p "The three most important inventions of the nineteenth century were"
else ifeq ($(MODEL),qwen)
	@python3 scripts/fetch_model.py qwen
	$(SNUG) run $(QWEN) --memory 600MiB -c 1024 -n 300 --temp 0 --chat -p "Write a Python function that returns the longest palindromic substring of a string, and say what its running time is."
else
	$(SNUG) run $(MODEL) -n 64 -p "The three most important inventions of the nineteenth century were"
endif

test: setup
	@python3 scripts/fetch_model.py gemma
	cmake --preset release
	cmake --build --preset release
	@scripts/run_tests.sh release

bench: build
	@python3 scripts/fetch_model.py gemma
	@python3 bench/compare.py $(if $(QUICK),--quick) $(if $(PEER),--peer $(PEER))

asan tsan: setup
	cmake --preset $@
	cmake --build --preset $@
	@scripts/run_tests.sh $@ -E 'GoldenReal'

fuzz:
	@scripts/setup.sh fuzz
	cmake --preset fuzz
	cmake --build --preset fuzz
	@scripts/fuzz.sh $(FUZZ_SECONDS) $(FUZZ)

neon:
	@scripts/setup.sh neon
	cmake --preset neon
	cmake --build --preset neon --target snug

format:
	@scripts/setup.sh format
	@git ls-files '*.cc' '*.h' | xargs clang-format -i

# One command per file, without what only the compiler reads.
tidy:
	@scripts/setup.sh tidy
	cmake --preset release -B build/tidy -DSNUG_UNITY=OFF -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON
	@git ls-files 'src/*.cc' | xargs -P 2 -n 1 clang-tidy -p build/tidy --quiet

clean:
	rm -rf build
