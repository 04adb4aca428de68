// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// A wallet with one owner for tests: it acts for the owner, and judges signatures as EIP-1271 has it.
/// `mood` makes it misbehave: 1 reverts, 2 returns nothing, 3 returns four bytes, 4 answers everything with ones,
/// 5 burns all its gas, 6 accepts any signature that is not empty.
contract ContractWallet {
    address private immutable owner;
    uint256 private immutable mood;

    constructor(address owner_, uint256 mood_) {
        owner = owner_;
        mood = mood_;
    }

    function execute(address target, bytes calldata data) external {
        require(msg.sender == owner, "not the owner");
        (bool done,) = target.call(data);
        require(done, "the call failed");
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external view returns (bytes4) {
        if (mood == 1) revert("no");
        if (mood == 5) assembly { invalid() }
        if (mood == 2) assembly { return(0, 0) }
        if (mood == 3) assembly {
            mstore(0, shl(224, 0x1626ba7e))
            return(0, 4)
        }
        if (mood == 4) assembly {
            mstore(0, not(0))
            return(0, 32)
        }
        if (mood == 6) return signature.length > 0 ? bytes4(0x1626ba7e) : bytes4(0xffffffff);
        if (signature.length != 65) return 0xffffffff;
        bytes32 r = bytes32(signature[0:32]);
        bytes32 s = bytes32(signature[32:64]);
        return ecrecover(digest, uint8(signature[64]), r, s) == owner ? bytes4(0x1626ba7e) : bytes4(0xffffffff);
    }
}
