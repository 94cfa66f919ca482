import Foundation
import Tensors
import Testing

#if canImport(Glibc)
    import Glibc
#endif

@Suite struct BLASTests {
    init() throws { try EngineFixture.open() }

    // Measured: bound to OpenBLAS, LibTorch's matrix product falls from 238 to 144 GFLOP/s. The
    // library's own table of bound symbols says what it calls, without any timing.
    @Test func matrixProductsStayInLibTorchWithOpenBLASLoadedFirst() throws {
        let openBLAS = try #require(dlsym(EngineFixture.openBLAS, "sgemm_"))
        let torch = try #require(
            LoadedLibrary(named: "libtorch_cpu.so"), "libtorch_cpu.so is not loaded")
        let bound = try #require(
            torch.boundAddress(of: "sgemm_"),
            "libtorch_cpu.so calls no sgemm_ through its symbol table; look for another check")
        #expect(bound != openBLAS)
        #expect(bound == dlsym(torch.handle, "sgemm_"))
        // OpenBLAS is in the global scope: a library opened without RTLD_DEEPBIND would take it.
        #expect(dlsym(nil, "sgemm_") == openBLAS)
    }
}

/// A shared library in this process, seen through the dynamic linker's own tables.
struct LoadedLibrary {
    /// What `dlopen` returned; the GNU C library documents it as a pointer to a `link_map`.
    let handle: UnsafeMutableRawPointer
    private let base: UInt
    private let dynamic: UnsafePointer<Elf64_Dyn>

    /// Finds a loaded library by its soname.
    init?(named name: String) {
        guard let handle = dlopen(name, RTLD_NOW | RTLD_NOLOAD) else { return nil }
        let map = handle.assumingMemoryBound(to: link_map.self).pointee
        guard let dynamic = map.l_ld else { return nil }
        self.handle = handle
        self.base = UInt(map.l_addr)
        self.dynamic = UnsafePointer(dynamic)
    }

    private func entry(_ tag: Int) -> UInt? {
        var cursor = dynamic
        while cursor.pointee.d_tag != 0 {
            if cursor.pointee.d_tag == tag { return UInt(cursor.pointee.d_un.d_ptr) }
            cursor += 1
        }
        return nil
    }

    /// The address that calls of `symbol` from this library go to.
    func boundAddress(of symbol: String) -> UnsafeMutableRawPointer? {
        guard let symbols = entry(6).flatMap({ UnsafePointer<Elf64_Sym>(bitPattern: $0) }),
            let names = entry(5).flatMap({ UnsafePointer<CChar>(bitPattern: $0) })
        else { return nil }
        // (DT_JMPREL, DT_PLTRELSZ) and (DT_RELA, DT_RELASZ).
        for (table, size) in [(23, 2), (7, 8)] {
            guard let bytes = entry(size),
                let entries = entry(table).flatMap({ UnsafePointer<Elf64_Rela>(bitPattern: $0) })
            else { continue }
            for place in 0..<(Int(bytes) / MemoryLayout<Elf64_Rela>.stride) {
                let number = Int(entries[place].r_info >> 32)
                guard number != 0, strcmp(names + Int(symbols[number].st_name), symbol) == 0
                else { continue }
                let slot = UnsafePointer<UInt>(bitPattern: base + UInt(entries[place].r_offset))
                return slot.flatMap { UnsafeMutableRawPointer(bitPattern: $0.pointee) }
            }
        }
        return nil
    }
}
