package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"reflect"
	"sync/atomic"
	"unsafe"
)

// material is a plain data key. The cache of keys for opening, the sealing key and every
// use under way retain it. The last release wipes it, so that no key is wiped in use.
type material struct {
	// block contains the key too.
	block      cipher.Block
	aead       cipher.AEAD
	references atomic.Int64
	wiped      func()
}

// newMaterial copies the key into material that the caller retains. It calls wiped once
// the material is wiped.
func newMaterial(key []byte, wiped func()) (*material, error) {
	if len(key) != keySize {
		return nil, fmt.Errorf("a data key of %d bytes, not %d", len(key), keySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("making a cipher of a data key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("making an AEAD of a data key: %w", err)
	}
	m := &material{block: block, aead: aead, wiped: wiped}
	m.references.Store(1)
	return m, nil
}

// retain reports whether the material may be used, until release.
func (m *material) retain() bool {
	for n := m.references.Load(); n > 0; n = m.references.Load() {
		if m.references.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

func (m *material) release() {
	if m.references.Add(-1) > 0 {
		return
	}
	for _, memory := range m.memory() {
		clear(memory)
	}
	m.wiped()
}

// memory returns the memory that contains the key: the AES round keys and the tables that
// GCM derives from them.
func (m *material) memory() [][]byte {
	return numbers(reflect.ValueOf(m.aead), numbers(reflect.ValueOf(m.block), nil))
}

// numbers appends the memory of every array and slice of integers that a value reaches.
// The standard library can't wipe a cipher. This works as long as ciphers keep keys in
// such arrays.
func numbers(v reflect.Value, found [][]byte) [][]byte {
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		if !v.IsNil() {
			found = numbers(v.Elem(), found)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			found = numbers(v.Field(i), found)
		}
	case reflect.Array, reflect.Slice:
		if v.Len() == 0 {
			break
		}
		if kind := v.Type().Elem().Kind(); kind >= reflect.Int && kind <= reflect.Uintptr {
			first := (*byte)(v.Index(0).Addr().UnsafePointer())
			return append(found, unsafe.Slice(first, v.Len()*int(v.Type().Elem().Size())))
		}
		for i := range v.Len() {
			found = numbers(v.Index(i), found)
		}
	}
	return found
}
