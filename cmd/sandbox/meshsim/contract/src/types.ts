import * as path from 'node:path'
import * as ts from 'typescript'

/**
 * Checks JSON values against the interfaces of a published .d.ts file, as those
 * state them: required fields, enumerations, null, whole numbers where the
 * comment says int32. A field that the interface does not know is a mismatch.
 */
export class PublishedTypes {
  private readonly checker: ts.TypeChecker
  private readonly exports: Map<string, ts.Symbol>

  /** @param name the package whose declared types to read */
  constructor(name: string) {
    const file = path.join(__dirname, '..', 'node_modules', name, 'index.d.ts')
    const program = ts.createProgram([file], {
      strict: true,
      target: ts.ScriptTarget.ES2022,
      moduleResolution: ts.ModuleResolutionKind.Node10,
      skipLibCheck: true
    })
    this.checker = program.getTypeChecker()
    const source = program.getSourceFile(file)
    const module = source && this.checker.getSymbolAtLocation(source)
    if (!module) throw new Error(`${name} has no types`)
    this.exports = new Map(this.checker.getExportsOfModule(module).map(s => [s.getName(), s]))
  }

  /** Says where a value does not fit an interface, without repeating the value. */
  mismatches(interfaceName: string, value: unknown): string[] {
    const symbol = this.exports.get(interfaceName)
    if (!symbol) return [`there is no type ${interfaceName}`]
    return this.compare(this.checker.getDeclaredTypeOfSymbol(symbol), value, interfaceName)
  }

  private compare(type: ts.Type, value: unknown, at: string): string[] {
    if (type.flags & (ts.TypeFlags.Any | ts.TypeFlags.Unknown)) return []
    if (type.isUnion()) {
      const tries = type.types.map(t => this.compare(t, value, at))
      if (tries.some(t => t.length === 0)) return []
      const inside = type.types.findIndex(t => t.flags & ts.TypeFlags.Object)
      return (typeof value === 'object' && value !== null && tries[inside]) || this.unfit(type, value, at)
    }
    if (type.flags & ts.TypeFlags.Object) return this.compareObject(type, value, at)
    return this.isPrimitive(type, value) ? [] : this.unfit(type, value, at)
  }

  private isPrimitive(type: ts.Type, value: unknown): boolean {
    if (type.isStringLiteral()) return value === type.value
    if (type.flags & ts.TypeFlags.BooleanLiteral) return String(value) === this.checker.typeToString(type)
    if (type.flags & ts.TypeFlags.String) return typeof value === 'string'
    if (type.flags & ts.TypeFlags.Number) return typeof value === 'number'
    if (type.flags & ts.TypeFlags.Null) return value === null
    return false
  }

  private compareObject(type: ts.Type, value: unknown, at: string): string[] {
    if (this.checker.isArrayType(type)) {
      if (!Array.isArray(value)) return this.unfit(type, value, at)
      const element = this.checker.getTypeArguments(type as ts.TypeReference)[0]
      return value.flatMap((v, i) => (element ? this.compare(element, v, `${at}[${i}]`) : []))
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return this.unfit(type, value, at)
    const fields = new Map(Object.entries(value))
    const found = type.getProperties().flatMap(property => {
      const name = property.getName()
      const here = `${at}.${name}`
      if (!fields.has(name)) return property.flags & ts.SymbolFlags.Optional ? [] : [`${here} is missing`]
      const v = fields.get(name)
      fields.delete(name)
      return [...this.compare(this.checker.getTypeOfSymbol(property), v, here), ...this.wholeNumber(property, v, here)]
    })
    return [...found, ...[...fields.keys()].map(name => `${at}.${name} is not part of the type`)]
  }

  private wholeNumber(property: ts.Symbol, value: unknown, at: string): string[] {
    const format = property.getJsDocTags(this.checker).find(t => t.name === 'format')
    const int32 = format?.text?.some(p => p.text.trim() === 'int32')
    if (!int32 || typeof value !== 'number') return []
    return Number.isInteger(value) && Math.abs(value) < 2 ** 31 ? [] : [`${at} is not an int32`]
  }

  private unfit(type: ts.Type, value: unknown, at: string): string[] {
    return [`${at}: a value of type ${value === null ? 'null' : typeof value} is not ${this.checker.typeToString(type)}`]
  }
}
