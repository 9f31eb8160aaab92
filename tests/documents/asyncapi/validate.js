// The AsyncAPI document in the file that is named, by the official parser. Errors and warnings are failures; hints are not.

import { readFileSync } from 'node:fs'
import { Parser } from '@asyncapi/parser'

const WARNING = 1
const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], 'utf8'))
const wrong = diagnostics.filter(({ severity }) => severity <= WARNING)
for (const { code, path, message } of wrong) console.error(`${path.join('.')}: ${message} (${code})`)
if (!document) console.error('it could not be read')
process.exit(document && wrong.length === 0 ? 0 : 1)
